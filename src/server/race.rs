//! Waiting for one of two.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// Which of two came first.
pub(super) enum Side<A, B> {
    First(A),
    Second(B),
}

/// Waits for one of two, and asks the first one first.
pub(super) async fn race<A: Future, B: Future>(mut a: Pin<&mut A>, mut b: Pin<&mut B>) -> Side<A::Output, B::Output> {
    poll_fn(|context| {
        if let Poll::Ready(output) = a.as_mut().poll(context) {
            return Poll::Ready(Side::First(output));
        }
        b.as_mut().poll(context).map(Side::Second)
    })
    .await
}
