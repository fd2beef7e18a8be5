include!("steps.inc");

pub(crate) fn main() {
    pipeline("release", |g: &mut Graph<'_>| {
        let deployed: Handle<'_, String> = g.effect("", Deploy, ());
        let smoked: Handle<'_, Smoked> = g.effect("", Smoke, ());
        let _ = deployed;
        g.effect("", Promote, smoked);
    });
}
