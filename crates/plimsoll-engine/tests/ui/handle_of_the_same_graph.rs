include!("steps.inc");

fn add<'a, 'b>(one: &mut Graph<'a>, other: &mut Graph<'b>) {
    let smoked = one.effect("", Smoke, ());
    let _: &mut Graph<'b> = other;
    one.effect("", Promote, smoked);
}

pub(crate) fn main() {
    let _ = add;
    let _: Option<Handle<'_, ()>> = None;
    pipeline("release", |g| {
        g.effect("", Deploy, ());
    });
}
