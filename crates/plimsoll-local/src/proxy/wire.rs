//! Lines of JSON and file descriptors over a Unix stream socket. Knows nothing of what the messages mean.

use super::control::Envelope;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};
use tokio::{io::Interest, net::UnixStream};

/// Listeners one proxy holds at most: they travel in one message, and Linux passes at most 253 descriptors in one.
pub(crate) const MAX_LISTENERS: usize = 128;

/// Longest message in bytes: a table of [`MAX_LISTENERS`] routes with dozens of replicas each fits tenfold.
const MAX_MESSAGE: usize = 4 << 20;

/// A control connection that broke or whose other end does not keep to the protocol.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Reading or writing failed.
    #[error("the proxy's control connection failed")]
    Io(#[from] io::Error),
    /// The other end closed the connection.
    #[error("the proxy's control connection was closed")]
    Closed,
    /// A message that is not JSON of the expected shape.
    #[error("a message on the proxy's control connection could not be read")]
    Shape(#[from] serde_json::Error),
    /// A message longer than the bound.
    #[error("a message on the proxy's control connection is longer than {MAX_MESSAGE} bytes")]
    TooLong,
    /// A message came without the file descriptors it speaks of.
    #[error("a message on the proxy's control connection came with {have} of {want} file descriptors")]
    Descriptors {
        /// How many it speaks of.
        want: usize,
        /// How many came.
        have: usize,
    },
}

/// The reading half's memory: what came and was not yet taken.
#[derive(Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    scanned: usize,
    descriptors: VecDeque<OwnedFd>,
}

impl Inbox {
    /// The next message, with as many descriptors as `count` says it has. `None` when the other end closed.
    /// May be cancelled between any two polls: what was read stays.
    pub(crate) async fn next<T: DeserializeOwned>(
        &mut self,
        stream: &UnixStream,
        count: impl Fn(&T) -> usize,
    ) -> Result<Option<(Envelope<T>, Vec<OwnedFd>)>, WireError> {
        loop {
            if let Some(end) = self.bytes[self.scanned..].iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=self.scanned + end).collect();
                self.scanned = 0;
                let envelope: Envelope<T> = serde_json::from_slice(&line)?;
                let want = count(&envelope.body);
                let have = self.descriptors.len();
                if have < want {
                    return Err(WireError::Descriptors { want, have });
                }
                return Ok(Some((envelope, self.descriptors.drain(..want).collect())));
            }
            self.scanned = self.bytes.len();
            if self.scanned > MAX_MESSAGE {
                return Err(WireError::TooLong);
            }
            if !self.fill(stream).await? {
                return Ok(None);
            }
        }
    }

    async fn fill(&mut self, stream: &UnixStream) -> Result<bool, WireError> {
        let (bytes, descriptors) = (&mut self.bytes, &mut self.descriptors);
        let read = stream
            .async_io(Interest::READABLE, || {
                let mut chunk = [0_u8; 16 * 1024];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_LISTENERS))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let mut parts = [IoSliceMut::new(&mut chunk)];
                let got = recvmsg(stream.as_fd(), &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(passed) = message {
                        descriptors.extend(passed);
                    }
                }
                bytes.extend_from_slice(&chunk[..got]);
                Ok(got)
            })
            .await?;
        // A peer that sends descriptors without messages would fill this process's table of files.
        if self.descriptors.len() > 2 * MAX_LISTENERS {
            return Err(WireError::Descriptors { want: 2 * MAX_LISTENERS, have: self.descriptors.len() });
        }
        Ok(read > 0)
    }
}

/// Sends one message, the descriptors with its first byte.
pub(crate) async fn send<T: Serialize>(
    stream: &UnixStream,
    envelope: &Envelope<T>,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), WireError> {
    let mut bytes = serde_json::to_vec(envelope)?;
    bytes.push(b'\n');
    let mut sent = 0;
    while sent < bytes.len() {
        sent += stream
            .async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_LISTENERS))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if sent == 0 && !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
                    return Err(io::Error::from(io::ErrorKind::InvalidInput));
                }
                let part = [IoSlice::new(&bytes[sent..])];
                Ok(sendmsg(stream.as_fd(), &part, &mut control, SendFlags::NOSIGNAL)?)
            })
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream as StdUnixStream;

    #[tokio::test]
    async fn messages_longer_than_a_read_arrive_whole_and_in_order_with_their_descriptors() {
        let (left, right) = UnixStream::pair().unwrap();
        let (passed, kept) = StdUnixStream::pair().unwrap();
        let long = "x".repeat(300_000);
        let writer = async {
            send(&left, &Envelope { id: 1, body: long.clone() }, &[]).await.unwrap();
            send(&left, &Envelope { id: 2, body: "fd".to_owned() }, &[passed.as_fd()]).await.unwrap();
            send(&left, &Envelope { id: 3, body: "end".to_owned() }, &[]).await.unwrap();
        };
        let reader = async {
            let mut inbox = Inbox::default();
            let mut all = Vec::new();
            for _ in 0..3 {
                all.push(inbox.next::<String>(&right, |s| usize::from(s == "fd")).await.unwrap().unwrap());
            }
            all
        };
        let ((), all) = tokio::join!(writer, reader);
        assert_eq!(all.iter().map(|(e, fds)| (e.id, fds.len())).collect::<Vec<_>>(), [(1, 0), (2, 1), (3, 0)]);
        assert_eq!(all[0].0.body, long);
        let received = StdUnixStream::from(all.into_iter().nth(1).unwrap().1.remove(0));
        io::Write::write_all(&mut &received, b"!").unwrap();
        let mut byte = [0];
        io::Read::read_exact(&mut &kept, &mut byte).unwrap();
        assert_eq!(&byte, b"!");
    }

    #[tokio::test]
    async fn a_message_without_its_descriptor_and_one_that_is_not_json_are_errors() {
        let (left, right) = UnixStream::pair().unwrap();
        send(&left, &Envelope { id: 1, body: "fd" }, &[]).await.unwrap();
        let error = Inbox::default().next::<String>(&right, |_| 1).await.unwrap_err();
        assert!(matches!(error, WireError::Descriptors { want: 1, have: 0 }));
        send(&left, &Envelope { id: 1, body: 7 }, &[]).await.unwrap();
        let error = Inbox::default().next::<String>(&right, |_| 0).await.unwrap_err();
        assert!(matches!(error, WireError::Shape(_)));
        drop(left);
        assert!(Inbox::default().next::<String>(&right, |_| 0).await.unwrap().is_none());
    }
}
