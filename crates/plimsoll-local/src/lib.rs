//! The local target: a supervisor that owns listeners and processes, and a proxy that routes each request.
