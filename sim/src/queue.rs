//! The queue at a line's directory.

use crate::request::Request;

/// Requests that wait for one line, in the order in which they arrive at the directory.
///
/// They are issued nearly in that order, so a new one has its place a few steps from the end.
#[derive(Debug, Default)]
pub(crate) struct RequestQueue {
    requests: Vec<Request>,
    /// So many at the beginning were served already.
    served: usize,
}

/// So many served requests are kept before the others are moved to the beginning.
const SERVED_KEPT: usize = 64;

impl RequestQueue {
    pub(crate) fn len(&self) -> usize {
        self.requests.len() - self.served
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts a request behind all that arrive before it or with it. Returns whether it is the first.
    #[inline]
    pub(crate) fn insert(&mut self, request: Request) -> bool {
        if self.requests.is_empty() {
            self.requests.push(request);
            return true;
        }
        self.insert_among(request)
    }

    fn insert_among(&mut self, request: Request) -> bool {
        let waiting = &self.requests[self.served..];
        let later = waiting.iter().rev().take_while(|other| other.arrives_at > request.arrives_at);
        let place = self.requests.len() - later.count();
        self.requests.insert(place, request);
        place == self.served
    }

    /// Returns the request that is served next.
    #[inline]
    pub(crate) fn first(&self) -> Option<&Request> {
        self.requests.get(self.served)
    }

    /// Takes away the request that is served next.
    #[inline]
    pub(crate) fn remove_first(&mut self) {
        self.served += 1;
        if self.served >= self.requests.len() {
            self.requests.clear();
            self.served = 0;
        } else if self.served == SERVED_KEPT {
            self.requests.drain(..SERVED_KEPT);
            self.served = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Requester, Want};

    fn pop(queue: &mut RequestQueue) -> Option<Request> {
        let first = queue.first().copied();
        queue.remove_first();
        first
    }

    fn request(core: u16, arrives_at: u64) -> Request {
        let want = Want::Read;
        let (by, factor) = (Requester::Access, 65536);
        Request { arrives_at, factor, row: 0, core, cache: core, words: 1, want, adds: false, by }
    }

    #[test]
    fn requests_are_served_by_arrival_then_age() {
        let mut queue = RequestQueue::default();
        assert!(queue.insert(request(1, 50)));
        assert!(!queue.insert(request(2, 60)));
        assert!(!queue.insert(request(3, 50)));
        assert!(queue.insert(request(4, 10)));
        assert_eq!(queue.first().map(|first| first.core), Some(4));
        let order: Vec<u16> =
            std::iter::from_fn(|| pop(&mut queue)).map(|next| next.core).collect();
        assert_eq!(order, [4, 1, 3, 2]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_queue_that_never_empties_stays_in_order() {
        let mut queue = RequestQueue::default();
        for core in 0..1000 {
            // Of each three the last arrives first.
            queue.insert(request(core, u64::from(core / 3 * 3 + 2 - core % 3)));
            if core >= 300 {
                let served = pop(&mut queue).map(|served| served.arrives_at);
                assert_eq!(served, Some(u64::from(core - 300)));
            }
        }
        assert_eq!(queue.len(), 300);
    }
}
