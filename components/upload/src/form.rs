//! The body of a form on its way to the parser, within bounds.
//!
//! multer gathers whatever is there until it finds a boundary or the end of a part's head, however long that takes. So what it is given
//! is counted: in all, and apart from that while no part is open; and it gets one piece at a time, so that it never holds much more than
//! it needs to go on.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::Stream;

/// How much may come between two parts, boundaries and heads, and how much longer than its files a whole body may be, in bytes.
pub const FRAMING: u64 = 64 * 1024;

/// More came than may.
#[derive(Debug, thiserror::Error)]
#[error("the body is longer than it may be")]
pub struct TooLong;

/// How much may still come before a part begins. Shared with whoever knows when one does.
#[derive(Clone)]
pub struct Framing(Arc<AtomicU64>);

impl Framing {
    /// A part ends here: the next one has to begin soon.
    pub fn closed(&self) {
        self.0.store(FRAMING, Relaxed);
    }

    /// A part has begun: whoever reads it counts.
    pub fn open(&self) {
        self.0.store(u64::MAX, Relaxed);
    }
}

/// See the module.
pub struct Bounded<S> {
    body: S,
    left: u64,
    framing: Framing,
    paused: bool,
}

/// Bounds a body to `most` bytes in all.
pub fn bounded<S>(body: S, most: u64) -> (Bounded<S>, Framing) {
    let framing = Framing(Arc::new(AtomicU64::new(FRAMING)));
    (Bounded { body, left: most, framing: framing.clone(), paused: false }, framing)
}

impl<S, E> Stream for Bounded<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        // The parser asks again at once for as long as something comes; here it is made to look at what it has first.
        if std::mem::replace(&mut this.paused, false) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.left == 0 || this.framing.0.load(Relaxed) == 0 {
            return Poll::Ready(Some(Err(TooLong.into())));
        }
        let piece = match Pin::new(&mut this.body).poll_next(context) {
            Poll::Ready(Some(Ok(piece))) => piece,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        let length = piece.len() as u64;
        this.left = this.left.saturating_sub(length);
        let framing = this.framing.0.load(Relaxed);
        if framing != u64::MAX {
            this.framing.0.store(framing.saturating_sub(length), Relaxed);
        }
        this.paused = true;
        Poll::Ready(Some(Ok(piece)))
    }
}
