//! The only place that starts commands: whole process trees, timeouts, streaming, redaction.
