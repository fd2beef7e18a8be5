include!("steps.inc");

pub(crate) fn main() {
    let read: Result<String, _> = serde_json::from_str("\"staging\"");
    let _ = (read.is_ok(), Smoke, Deploy, Promote);
    let _: Option<(Handle<'_, ()>, Graph<'_>)> = None;
    let _ = pipeline("empty", |_| ());
}
