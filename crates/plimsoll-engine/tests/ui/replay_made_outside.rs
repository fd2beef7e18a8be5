include!("steps.inc");

pub(crate) fn main() {
    let decode = |replay: &Replay| Smoked::decode("staging", replay);
    let _ = || Smoked::decode("staging", &Replay(()));
    let _ = (decode, Smoke, Deploy, Promote);
    let _: Option<(Handle<'_, ()>, Graph<'_>)> = None;
    let _ = pipeline("empty", |_| ());
}
