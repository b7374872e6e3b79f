//! The body of a request on its way in. Its sender is waited for, but not for ever: whoever sends a byte now and then would hold what has come so
//! far, and a place in the instance, for as long as they like.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::Stream;
use http_body_util::BodyDataStream;
use problem::Problem;

use crate::RequestBody;

/// How long, in all, a form or a photo may be waited for. Ten megabytes at 1.7 Mbit/s; from somebody slower a proxy in front takes them. The
/// embedded host tells a client that there was no answer after sixty seconds, and by then this one has to be out.
pub const FOR_PHOTOS: Duration = Duration::from_secs(50);
/// The same for a body of some KiB.
pub const FOR_WORDS: Duration = Duration::from_secs(10);

/// The unread body of a request.
pub type Body = Timely<BodyDataStream<RequestBody>>;

/// Why a body ends early.
#[derive(Debug)]
pub enum Fault {
    /// It was waited for as long as may be.
    Late,
    /// The connection broke, or what came is no body.
    Broken(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Late => "the body was waited for in vain",
            Self::Broken(cause) => cause,
        })
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let message = match fault {
            Fault::Late => "The body took too long to arrive. Send it again, over a faster connection.",
            Fault::Broken(_) => "The body broke off.",
        };
        Self::invalid("body", message).because(fault)
    }
}

type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A body that may be waited for so long in all. What its reader does between two pieces does not count.
pub struct Timely<S> {
    body: S,
    left: Duration,
    /// Since when, and until when.
    waiting: Option<(Instant, Timer)>,
    sleep: fn(Duration) -> Timer,
}

impl<S> Timely<S> {
    pub(crate) fn new(body: S, limit: Duration) -> Self {
        Self { body, left: limit, waiting: None, sleep: |time| Box::pin(spin_sdk::time::sleep(time)) }
    }
}

impl<S, E> Stream for Timely<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
{
    type Item = Result<Bytes, Fault>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Poll::Ready(piece) = Pin::new(&mut this.body).poll_next(context) {
            if let Some((since, _)) = this.waiting.take() {
                this.left = this.left.saturating_sub(since.elapsed());
            }
            return Poll::Ready(piece.map(|piece| piece.map_err(|error| Fault::Broken(error.to_string()))));
        }
        let (_, timer) = this.waiting.get_or_insert_with(|| (Instant::now(), (this.sleep)(this.left)));
        if timer.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        (this.left, this.waiting) = (Duration::ZERO, None);
        Poll::Ready(Some(Err(Fault::Late)))
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Mutex};

    use futures::{FutureExt, StreamExt, channel::mpsc, future, stream};

    use super::*;

    fn timely<S>(body: S, sleep: fn(Duration) -> Timer) -> Timely<S> {
        Timely { body, left: Duration::from_secs(5), waiting: None, sleep }
    }

    fn piece(text: &'static str) -> Result<Bytes, Infallible> {
        Ok(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn what_is_there_is_read_however_late_it_is() {
        let body = stream::iter([piece("one"), piece("two")]);
        let read: Vec<_> = timely(body, |_| Box::pin(future::ready(()))).collect().now_or_never().expect("all of it is there");
        assert_eq!(read.into_iter().map(|piece| piece.expect("a piece")).collect::<Vec<_>>(), ["one", "two"]);
    }

    #[test]
    fn what_is_not_there_is_waited_for_until_its_time_is_over() {
        let (sender, body) = mpsc::unbounded::<Result<Bytes, Infallible>>();
        let mut patient = timely(body, |_| Box::pin(future::pending()));
        assert!(patient.next().now_or_never().is_none());
        sender.unbounded_send(piece("one")).expect("sent");
        assert!(patient.next().now_or_never().is_some_and(|piece| matches!(piece, Some(Ok(_)))));
        let mut late = timely(patient.body, |_| Box::pin(future::ready(())));
        // Also for whoever goes on reading to throw the rest away.
        for _ in 0..2 {
            assert!(late.next().now_or_never().is_some_and(|piece| matches!(piece, Some(Err(Fault::Late)))));
        }
        drop(sender);
        assert!(late.next().now_or_never().is_some_and(|end| end.is_none()));
    }

    #[test]
    fn every_wait_takes_of_the_same_time() {
        static GIVEN: Mutex<Vec<Duration>> = Mutex::new(Vec::new());
        let (sender, body) = mpsc::unbounded::<Result<Bytes, Infallible>>();
        let mut body = timely(body, |time| {
            GIVEN.lock().expect("no panic").push(time);
            Box::pin(future::pending())
        });
        for _ in 0..3 {
            // Asked twice it is one wait.
            assert!(body.next().now_or_never().is_none() && body.next().now_or_never().is_none());
            std::thread::sleep(Duration::from_millis(2));
            sender.unbounded_send(piece("a drop")).expect("sent");
            assert!(body.next().now_or_never().is_some());
        }
        let given = GIVEN.lock().expect("no panic");
        assert_eq!((given.len(), given[0]), (3, Duration::from_secs(5)));
        assert!(given.windows(2).all(|pair| pair[1] + Duration::from_millis(2) <= pair[0]), "{given:?}");
    }

    #[test]
    fn a_body_that_breaks_off_is_not_one_that_is_late() {
        let body = stream::iter([Err::<Bytes, _>(std::io::Error::other("a tunnel"))]);
        let read = timely(body, |_| Box::pin(future::pending())).next().now_or_never();
        let Some(Some(Err(fault))) = read else { panic!("{read:?}") };
        let (broken, late) = (Problem::from(fault), Problem::from(Fault::Late));
        assert_eq!((broken.code, late.code), (problem::Code::InvalidInput, problem::Code::InvalidInput));
        assert_eq!((broken.cause.as_deref(), late.errors[0].field.as_str()), (Some("a tunnel"), "body"));
        assert_ne!(broken.detail, late.detail);
    }
}
