//! What a step may return, and the one way back from bytes to a proof.

use serde::{Serialize, de::DeserializeOwned};

/// The right to decode recorded outputs. Only the engine can make one, so a type whose only decoder asks for it cannot
/// be forged from a file: that is what makes a proof a proof.
pub struct Replay(());

impl Replay {
    pub(crate) const fn new() -> Self {
        Self(())
    }
}

/// The output of a step: a value that can be written down and, by the engine, read back.
///
/// Plain data gets this from serde. A proof type has no `Deserialize`; it implements this trait by hand, with private
/// fields, and so comes into being only in its own step or here.
pub trait Output: Clone + Send + Sync + 'static {
    /// The recorded form. Equal values give equal texts: later fingerprints are made of it.
    fn encode(&self) -> String;

    /// Reads the recorded form back; the error says what is wrong with it.
    fn decode(text: &str, replay: &Replay) -> Result<Self, String>;
}

impl<T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> Output for T {
    fn encode(&self) -> String {
        serde_json::to_string(self).expect("outputs are plain data with string keys, which JSON can hold")
    }

    fn decode(text: &str, _: &Replay) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|e| e.to_string())
    }
}
