//! The allocator of slots: which parts of an arena are in use.

use std::collections::BTreeMap;
use std::ops::Range;
use thiserror::Error;

/// Slots begin at multiples of this, so at page boundaries: no system has larger pages.
pub const ALIGN: u64 = 64 * 1024;

/// A report from Python about a slot that is not in use.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a report about a slot at {0} of shared memory, which is not in use")]
pub struct Unknown(u64);

#[derive(Debug)]
struct State {
    length: u64,
    /// Whether Python has yet to read the frame that names it.
    unread: bool,
}

/// A slot that has been reserved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Where its content begins: after the lead.
    pub offset: u64,
    /// Its length: that of the lead and the content, rounded up to a multiple of [`ALIGN`].
    pub length: u64,
    /// The part of it, its end or nothing, that certainly has no memory yet.
    pub fresh: Range<u64>,
}

/// The slots of one arena that are in use. A new slot gets the lowest place that is large enough, because memory is most
/// likely already allocated there.
#[derive(Debug)]
pub struct Slots {
    size: u64,
    /// By the offset of the content.
    used: BTreeMap<u64, State>,
    /// Bytes in use.
    bytes: u64,
    /// No slot has ended beyond this since the last call of [`Slots::take_slack`], so no memory is allocated there.
    top: u64,
    /// Whether a slot has been freed since that call.
    slack: bool,
}

impl Slots {
    /// No slots yet, in an arena of `size` bytes.
    #[must_use]
    pub fn new(size: u64) -> Self {
        Slots { size, used: BTreeMap::new(), bytes: 0, top: 0, slack: false }
    }

    /// Reserves a slot for `length` bytes that begin `lead` bytes after it, less than [`ALIGN`]. `None` if there is no room.
    pub fn reserve(&mut self, lead: usize, length: usize) -> Option<Slot> {
        let lead = u64::try_from(lead).ok().filter(|lead| *lead < ALIGN)?;
        let length = u64::try_from(length).ok()?.checked_add(lead)?.max(1).checked_next_multiple_of(ALIGN)?;
        let mut start = 0;
        for (offset, slot) in &self.used {
            let begin = beginning(*offset);
            if begin - start >= length {
                break;
            }
            start = begin + slot.length;
        }
        let end = start.checked_add(length).filter(|end| *end <= self.size)?;
        self.used.insert(start + lead, State { length, unread: true });
        self.bytes += length;
        let fresh = self.top.clamp(start, end)..end;
        self.top = self.top.max(end);
        Some(Slot { offset: start + lead, length, fresh })
    }

    /// Notes that Python has read the frame that names the slot at `offset`. Returns how many bytes are no longer unread.
    ///
    /// # Errors
    /// [`Unknown`]
    pub fn taken(&mut self, offset: u64) -> Result<u64, Unknown> {
        let slot = self.used.get_mut(&offset).ok_or(Unknown(offset))?;
        Ok(if std::mem::take(&mut slot.unread) { slot.length } else { 0 })
    }

    /// Frees the slot at `offset`. Returns how many bytes are no longer unread.
    ///
    /// # Errors
    /// [`Unknown`]
    pub fn free(&mut self, offset: u64) -> Result<u64, Unknown> {
        let slot = self.used.remove(&offset).ok_or(Unknown(offset))?;
        self.bytes -= slot.length;
        self.slack = true;
        Ok(if slot.unread { slot.length } else { 0 })
    }

    /// Bytes in use.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether there may be memory that is in no slot.
    #[must_use]
    pub fn has_slack(&self) -> bool {
        self.slack
    }

    /// The ranges that may have memory but are in no slot. The caller gives them back to the system before it reserves the
    /// next slot.
    pub fn take_slack(&mut self) -> Vec<Range<u64>> {
        let mut ranges = Vec::new();
        let mut start = 0;
        for (offset, slot) in &self.used {
            let begin = beginning(*offset);
            ranges.push(start..begin);
            start = begin + slot.length;
        }
        ranges.push(start..self.top.max(start));
        ranges.retain(|range| !range.is_empty());
        self.top = start;
        self.slack = false;
        ranges
    }
}

/// Where the slot begins whose content begins at `offset`.
fn beginning(offset: u64) -> u64 {
    offset - offset % ALIGN
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::Index;

    #[test]
    fn the_lowest_place_is_taken_again() {
        let mut slots = Slots::new(4 * ALIGN);
        let places: Vec<_> = (0..5).map(|_| slots.reserve(0, 1).map(|slot| slot.offset)).collect();
        assert_eq!(places, [Some(0), Some(ALIGN), Some(2 * ALIGN), Some(3 * ALIGN), None]);
        slots.free(ALIGN).unwrap();
        slots.free(0).unwrap();
        let Slot { offset, length, .. } = slots.reserve(0, ALIGN as usize + 1).unwrap();
        assert_eq!((offset, length), (0, 2 * ALIGN));
    }

    #[test]
    fn what_lies_beyond_all_earlier_slots_is_fresh() {
        let mut slots = Slots::new(8 * ALIGN);
        let fresh = |slots: &mut Slots, count: u64| {
            let Slot { offset, fresh, .. } = slots.reserve(0, (count * ALIGN) as usize).unwrap();
            (offset / ALIGN, fresh.start / ALIGN..fresh.end / ALIGN)
        };
        assert_eq!(fresh(&mut slots, 2), (0, 0..2));
        assert_eq!(fresh(&mut slots, 2), (2, 2..4));
        slots.free(2 * ALIGN).unwrap();
        assert_eq!(fresh(&mut slots, 1), (2, 3..3));
        assert_eq!(fresh(&mut slots, 3), (3, 4..6));
        slots.free(3 * ALIGN).unwrap();
        // What has been given back to the system is fresh again.
        slots.take_slack();
        assert_eq!(fresh(&mut slots, 2), (3, 3..5));
    }

    #[test]
    fn what_no_arena_holds_is_refused() {
        assert_eq!(Slots::new(u64::MAX).reserve(0, usize::MAX), None);
        assert_eq!(Slots::new(ALIGN - 1).reserve(0, 1), None);
    }

    #[test]
    fn a_report_about_what_is_not_in_use_is_an_error() {
        let mut slots = Slots::new(4 * ALIGN);
        assert_eq!(slots.reserve(0, 1), Some(Slot { offset: 0, length: ALIGN, fresh: 0..ALIGN }));
        assert_eq!((slots.taken(0), slots.taken(0)), (Ok(ALIGN), Ok(0)));
        assert_eq!((slots.free(0), slots.free(0)), (Ok(0), Err(Unknown(0))));
        assert_eq!(slots.taken(ALIGN), Err(Unknown(ALIGN)));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Reserve(usize, u64),
        Taken(Index),
        Free(Index),
        Slack,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..64usize, 1..8 * ALIGN).prop_map(|(lead, length)| Step::Reserve(lead, length)),
            1 => any::<Index>().prop_map(Step::Taken),
            2 => any::<Index>().prop_map(Step::Free),
            1 => Just(Step::Slack),
        ]
    }

    fn overlaps(one: &Range<u64>, other: &Range<u64>) -> bool {
        one.start < other.end && other.start < one.end
    }

    proptest! {
        #[test]
        fn slots_never_overlap_and_memory_is_given_back_only_when_it_is_in_none(
            steps in prop::collection::vec(step(), 0..60),
        ) {
            let size = 16 * ALIGN;
            let mut slots = Slots::new(size);
            let mut used: Vec<Range<u64>> = Vec::new();
            let mut named: Vec<u64> = Vec::new();
            // The allocated ranges that belong to no slot.
            let mut left: Vec<Range<u64>> = Vec::new();
            for step in steps {
                match step {
                    Step::Reserve(lead, length) => {
                        if let Some(slot) = slots.reserve(lead, length as usize) {
                            let start = slot.offset - lead as u64;
                            let range = start..start + slot.length;
                            prop_assert!(start.is_multiple_of(ALIGN) && range.end <= size);
                            prop_assert!(slot.length >= lead as u64 + length);
                            prop_assert!(!used.iter().any(|other| overlaps(&range, other)));
                            // No memory is where there has been no slot since memory was given back.
                            let fresh = slot.fresh;
                            prop_assert!(fresh.is_empty() || !left.iter().any(|other| overlaps(&fresh, other)));
                            prop_assert!(fresh.start >= range.start && fresh.end == range.end);
                            used.push(range);
                            named.push(slot.offset);
                        }
                    }
                    Step::Taken(index) if !used.is_empty() => {
                        prop_assert!(slots.taken(*index.get(&named)).is_ok());
                    }
                    Step::Free(index) if !used.is_empty() => {
                        let range = used.remove(index.index(used.len()));
                        prop_assert!(slots.free(named.remove(index.index(named.len()))).is_ok());
                        prop_assert!(slots.has_slack());
                        left.push(range);
                    }
                    Step::Slack => {
                        let given = slots.take_slack();
                        prop_assert!(!given.iter().any(|range| used.iter().any(|other| overlaps(range, other))));
                        for range in left.drain(..) {
                            for offset in (range.start..range.end).step_by(ALIGN as usize) {
                                let there = offset..offset + ALIGN;
                                let covered = |ranges: &[Range<u64>]| ranges.iter().any(|other| overlaps(&there, other));
                                prop_assert!(covered(&used) || covered(&given));
                            }
                        }
                    }
                    _ => {}
                }
                let bytes: u64 = used.iter().map(|range| range.end - range.start).sum();
                prop_assert_eq!(slots.bytes(), bytes);
            }
        }
    }
}
