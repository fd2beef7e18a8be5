//! The two bodies that pass through the proxy, a frame at a time: the request's towards the service, with a bound on
//! its length, and the response's towards the client, which drives its upstream connection while it is read.

use super::{
    pool::Pooled,
    target::{End, InFlight, Phase},
};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
};
use tokio::sync::futures::OwnedNotified;

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The client broke off its request, or the service its response.
    #[error("the message was broken off")]
    Broken(#[from] hyper::Error),
    /// The request is longer than the route allows.
    #[error("the request is longer than allowed")]
    TooLong,
    /// The drain of the slot reached its deadline.
    #[error("the drain of the slot reached its deadline")]
    Drained,
}

/// What became of a request's body, as far as the client is to blame.
#[derive(Debug, Default)]
pub(crate) struct BodyFate(AtomicU8);

impl BodyFate {
    pub(crate) fn client_gone(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 1
    }

    pub(crate) fn too_long(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 2
    }
}

/// The body of a request on its way to the service.
pub(crate) enum UpBody {
    /// No body.
    Empty,
    /// The client's body and how many bytes may yet come.
    Client { incoming: Incoming, left: u64, fate: Arc<BodyFate> },
}

impl Body for UpBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self::Client { incoming, left, fate } = self.get_mut() else { return Poll::Ready(None) };
        let frame = std::task::ready!(Pin::new(incoming).poll_frame(cx));
        Poll::Ready(frame.map(|frame| match frame {
            Ok(frame) => {
                let length = frame.data_ref().map_or(0, |d| d.len() as u64);
                if length > *left {
                    fate.0.store(2, Ordering::Relaxed);
                    return Err(BodyError::TooLong);
                }
                *left -= length;
                Ok(frame)
            }
            Err(error) => {
                fate.0.store(1, Ordering::Relaxed);
                Err(error.into())
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client { incoming, .. } => incoming.size_hint(),
        }
    }
}

/// The body of a response on its way to the client.
pub(crate) enum OutBody {
    /// The proxy's own answer.
    Own(Option<Bytes>),
    /// A service's answer.
    Service(Passing),
}

/// A response body that passes through, with the connection it comes from.
pub(crate) struct Passing {
    incoming: Incoming,
    replica: usize,
    in_flight: Option<(InFlight, Pooled)>,
    ended: Option<Pin<Box<OwnedNotified>>>,
}

impl OutBody {
    /// The body of a response that came on `pooled`. When it has none, the connection is free at once.
    pub(crate) async fn pass(incoming: Incoming, replica: usize, flight: InFlight, pooled: Pooled) -> Self {
        let mut passing = Passing { incoming, replica, in_flight: Some((flight, pooled)), ended: None };
        if passing.incoming.is_end_stream() {
            std::future::poll_fn(|cx| {
                passing.complete(cx);
                Poll::Ready(())
            })
            .await;
            return Self::Own(None);
        }
        Self::Service(passing)
    }
}

impl Passing {
    /// The last of the body was read: the connection is kept, the request counted.
    fn complete(&mut self, cx: &mut Context<'_>) {
        if let Some((flight, mut pooled)) = self.in_flight.take() {
            if pooled.is_idle(cx) {
                flight.target.keep(self.replica, pooled);
            }
            flight.finish(End::Answered);
        }
    }

    fn abort(&mut self) {
        if let Some((flight, _)) = self.in_flight.take() {
            flight.finish(End::Aborted);
        }
    }

    /// Whether the target's deadline has passed. Registers for the news.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> bool {
        let Some((flight, _)) = &self.in_flight else { return false };
        loop {
            let target = &flight.target;
            let ended = self.ended.get_or_insert_with(|| Box::pin(target.next_change()));
            let changed = ended.as_mut().poll(cx).is_ready();
            if target.phase() >= Phase::Ended {
                return true;
            }
            if !changed {
                return false;
            }
            self.ended = None;
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some((_, pooled)) = &mut self.in_flight {
            pooled.drive(cx);
        }
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if self.incoming.is_end_stream() {
                    self.complete(cx);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.abort();
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                self.complete(cx);
                Poll::Ready(None)
            }
            Poll::Pending => {
                if self.poll_ended(cx) {
                    self.abort();
                    return Poll::Ready(Some(Err(BodyError::Drained)));
                }
                // Asking for a frame has told the connection to read one; let it try before this task sleeps.
                if let Some((_, pooled)) = &mut self.in_flight {
                    pooled.drive(cx);
                }
                Poll::Pending
            }
        }
    }
}

impl Body for OutBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Own(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Service(passing) => passing.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Service(passing) => passing.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Service(passing) => passing.incoming.size_hint(),
        }
    }
}
