//! The code of one process by address: which file, and where in it.
//!
//! Copied on write, because a child starts with its parent's map. Refuses: data mappings, and names of anonymous code.

use std::sync::Arc;

use super::module::Module;

/// Regions of one process; a JVM with many libraries has some hundreds.
const REGIONS_MAX: usize = 8_192;

/// What a region of code, or an address in it, is.
#[derive(Clone, Debug)]
pub enum Place {
    /// Bytes of a file.
    File {
        /// The file.
        module: Arc<Module>,
        /// Offset in the file, bytes.
        offset: u64,
    },
    /// The kernel's shared object.
    Vdso {
        /// Offset from the start of the mapping, bytes.
        offset: u64,
    },
    /// Code without a file: made by a runtime.
    Anonymous,
}

#[derive(Clone, Debug)]
struct Region {
    start: u64,
    end: u64,
    place: Place,
}

/// The code of one process, sorted by address, without overlaps.
#[derive(Clone, Debug, Default)]
pub struct CodeMap {
    regions: Arc<Vec<Region>>,
    generation: u32,
}

impl CodeMap {
    /// Whether nothing is mapped yet.
    pub fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// Grows whenever an address may have got another meaning.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Adds a region; what it covers of older ones is gone. Anonymous code is only remembered as absence of files.
    pub fn insert(&mut self, start: u64, end: u64, place: Place) {
        if start >= end {
            return;
        }
        let regions = Arc::make_mut(&mut self.regions);
        let first = regions.partition_point(|region| region.end <= start);
        let last = regions.partition_point(|region| region.start < end);
        let mut pieces = Vec::with_capacity(3);
        if let Some(before) = regions[first..last].first().filter(|region| region.start < start) {
            pieces.push(Region { end: start, ..before.clone() });
        }
        if !matches!(place, Place::Anonymous) && regions.len() < REGIONS_MAX {
            pieces.push(Region { start, end, place });
        }
        if let Some(after) = regions[first..last].last().filter(|region| region.end > end) {
            pieces.push(Region {
                start: end,
                end: after.end,
                place: after.place.advanced(end - after.start),
            });
        }
        if first < last {
            self.generation = self.generation.wrapping_add(1);
        }
        regions.splice(first..last, pieces);
    }

    /// Takes the regions of another map, keeping this one's generation moving.
    pub fn replace(&mut self, other: Self) {
        self.regions = other.regions;
        self.generation = self.generation.wrapping_add(1);
    }

    /// The regions, by address: first address, end, and what stands there.
    pub fn regions(&self) -> impl Iterator<Item = (u64, u64, &Place)> {
        self.regions.iter().map(|region| (region.start, region.end, &region.place))
    }

    /// What stands at an address.
    pub fn place(&self, address: u64) -> Option<Place> {
        let index = self.regions.partition_point(|region| region.end <= address);
        let region = self.regions.get(index).filter(|region| region.start <= address)?;
        Some(region.place.advanced(address - region.start))
    }
}

impl Place {
    fn advanced(&self, bytes: u64) -> Self {
        match self {
            Self::File { module, offset } => {
                Self::File { module: Arc::clone(module), offset: offset.wrapping_add(bytes) }
            }
            Self::Vdso { offset } => Self::Vdso { offset: offset.wrapping_add(bytes) },
            Self::Anonymous => Self::Anonymous,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inserts regions of vDSO code whose offset is their number times 1,000, `None` for anonymous ones; expects the
    /// offset at each address.
    fn check(regions: &[(u64, u64, Option<u64>)], expected: &[(u64, Option<u64>)]) {
        let mut map = CodeMap::default();
        for &(start, end, number) in regions {
            let place = number.map_or(Place::Anonymous, |number| Place::Vdso { offset: number * 1_000 });
            map.insert(start, end, place);
        }
        for &(address, expected_offset) in expected {
            let offset = match map.place(address) {
                Some(Place::Vdso { offset }) => Some(offset),
                _ => None,
            };
            assert_eq!(offset, expected_offset, "address {address} of {regions:?}");
        }
        let sorted = map.regions.windows(2).all(|pair| pair[0].end <= pair[1].start);
        assert!(sorted, "{:?}", map.regions);
    }

    #[test]
    fn look_ups() {
        check(&[], &[(5, None)]);
        check(&[(10, 20, Some(1))], &[(9, None), (10, Some(1_000)), (19, Some(1_009)), (20, None)]);
        check(&[(30, 40, Some(2)), (10, 20, Some(1))], &[(15, Some(1_005)), (25, None), (35, Some(2_005))]);
    }

    proptest::proptest! {
        /// Whatever the order, the newest region that covers an address answers for it.
        #[test]
        fn the_newest_region_wins(regions in proptest::collection::vec((0u64..64, 1u64..32, proptest::bool::ANY), 0..24)) {
            let regions: Vec<(u64, u64, Option<u64>)> = regions
                .into_iter()
                .enumerate()
                .map(|(index, (start, length, is_file))| (start, start + length, is_file.then_some(index as u64)))
                .collect();
            let newest = |address: u64| {
                let covering = regions.iter().rev().find(|(start, end, _)| (*start..*end).contains(&address));
                covering.and_then(|(start, _, number)| Some((*number)? * 1_000 + (address - start)))
            };
            let expected: Vec<(u64, Option<u64>)> = (0..96).map(|address| (address, newest(address))).collect();
            check(&regions, &expected);
        }
    }

    #[test]
    fn newer_regions_cut_older_ones() {
        check(&[(10, 20, Some(1)), (10, 20, Some(2))], &[(15, Some(2_005))]);
        check(
            &[(10, 40, Some(1)), (20, 30, Some(2))],
            &[(15, Some(1_005)), (25, Some(2_005)), (35, Some(1_025))],
        );
        check(
            &[(10, 20, Some(1)), (20, 30, Some(2)), (15, 25, Some(3))],
            &[(14, Some(1_004)), (20, Some(3_005)), (27, Some(2_007))],
        );
        check(&[(10, 40, Some(1)), (20, 30, None)], &[(15, Some(1_005)), (25, None), (35, Some(1_025))]);
        check(&[(20, 20, Some(1)), (30, 10, Some(1))], &[(20, None), (15, None)]);
    }
}
