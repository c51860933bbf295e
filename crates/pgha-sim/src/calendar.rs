//! The calendar: what will happen, in the order of time, and of what happens at one time in the order of entry.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::etcd::Time;

/// What will happen. The heap orders small keys; what they stand for does not move.
#[derive(Debug)]
pub(crate) struct Calendar<T> {
    heap: BinaryHeap<Reverse<(Time, u64, usize)>>,
    places: Vec<Option<T>>,
    free: Vec<usize>,
    sequence: u64,
}

impl<T> Calendar<T> {
    pub(crate) fn new() -> Calendar<T> {
        Calendar {
            heap: BinaryHeap::new(),
            places: Vec::new(),
            free: Vec::new(),
            sequence: 0,
        }
    }

    /// Enters something.
    pub(crate) fn add(&mut self, time: Time, what: T) {
        self.sequence += 1;
        let place = match self.free.pop() {
            Some(place) => {
                self.places[place] = Some(what);
                place
            }
            None => {
                self.places.push(Some(what));
                self.places.len() - 1
            }
        };
        self.heap.push(Reverse((time, self.sequence, place)));
    }

    /// The next thing that happens until a point in time, with its time and its number.
    pub(crate) fn next(&mut self, until: Time) -> Option<(Time, u64, T)> {
        let Reverse((time, sequence, place)) = *self.heap.peek().filter(|Reverse((time, ..))| *time <= until)?;
        self.heap.pop();
        self.free.push(place);
        let what = self.places[place].take()?;
        Some((time, sequence, what))
    }
}

#[cfg(test)]
mod tests {
    use super::Calendar;

    #[test]
    fn things_happen_in_the_order_of_time_and_then_of_entry() {
        let mut calendar = Calendar::new();
        calendar.add(5, "late");
        calendar.add(3, "first");
        assert_eq!(calendar.next(4), Some((3, 2, "first")));
        assert_eq!(calendar.next(4), None);
        calendar.add(5, "later");
        calendar.add(4, "second");
        assert_eq!(calendar.next(9), Some((4, 4, "second")));
        assert_eq!(calendar.next(9), Some((5, 1, "late")));
        assert_eq!(calendar.next(9), Some((5, 3, "later")));
        assert_eq!(calendar.next(9), None);
    }
}
