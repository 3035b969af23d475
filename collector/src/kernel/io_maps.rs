//! Reads the kernel's counts of I/O: distributions by cgroup, and files where they are wanted.
//!
//! Refuses: whose a cgroup is, and what the numbers are called.

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues, Queue};
use collector_common::io::{Distribution, FileCounts, FileKey, Key, OVERFLOW_CGROUP, OVERFLOW_PLACE};

use super::batch::Batch;
use super::map::{Plain, take_map};

/// Bytes of all distributions in the kernel, at most.
const DISTRIBUTION_BYTES_MAX: usize = 48 * 1024 * 1024;

/// Distributions, at least and at most: twelve of each of 85 or of 1,365 containers.
const DISTRIBUTIONS_MIN: usize = 1_024;
const DISTRIBUTIONS_MAX: usize = 16_384;

/// The key of what found no place.
const OVERFLOW: Key =
    Key { cgroup_id: OVERFLOW_CGROUP, detail: 0, measure: 0, operation: 0, label: 0, error: 0 };

/// The kernel's maps.
pub struct IoMaps {
    distributions: PerCpuArray<MapData, Plain<Distribution>>,
    places: HashMap<MapData, Plain<Key>, u32>,
    /// How both are read at once.
    distribution_batch: Batch<u32, Distribution>,
    place_batch: Batch<Key, u32>,
    /// The key of each place at this reading.
    keys: Vec<Option<Key>>,
    free_places: Queue<MapData, u32>,
    generation: Array<MapData, u32>,
    /// Places of keys that are gone. Programs that remember them may still count there for a moment.
    left: Vec<u32>,
    files: HashMap<MapData, Plain<FileKey>, Plain<FileCounts>>,
    files_lost: PerCpuArray<MapData, u64>,
}

/// Distributions that the map of a machine with so many CPUs has room for.
pub fn distributions_max(cpus: usize) -> u32 {
    let each = cpus.max(1) * size_of::<Distribution>();
    (DISTRIBUTION_BYTES_MAX / each).clamp(DISTRIBUTIONS_MIN, DISTRIBUTIONS_MAX) as u32
}

impl IoMaps {
    /// Takes the maps out of the object.
    ///
    /// # Errors
    ///
    /// If they are not there or of other types: the object and the daemon do not belong together.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let distributions = take_map(ebpf, "DISTRIBUTIONS")?;
        let places = take_map(ebpf, "PLACES")?;
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error).context("count the CPUs")?;
        let distribution_batch = Batch::new(data(&distributions)?, cpus)?;
        let place_batch = Batch::new(data(&places)?, 1)?;
        let distributions: PerCpuArray<_, Plain<Distribution>> = PerCpuArray::try_from(distributions)?;
        let mut free_places: Queue<_, u32> = Queue::try_from(take_map(ebpf, "FREE_PLACES")?)?;
        for place in OVERFLOW_PLACE + 1..distributions.len() {
            free_places.push(place, 0).context("cannot write the queue of free places")?;
        }
        Ok(Self {
            keys: vec![None; distributions.len() as usize],
            distributions,
            places: HashMap::try_from(places)?,
            distribution_batch,
            place_batch,
            free_places,
            generation: Array::try_from(take_map(ebpf, "PLACES_GENERATION")?)?,
            left: Vec::new(),
            files: HashMap::try_from(take_map(ebpf, "FILES")?)?,
            files_lost: PerCpuArray::try_from(take_map(ebpf, "FILES_LOST")?)?,
        })
    }

    /// Reads all distributions with their places, each summed up over the CPUs. Some may come twice.
    pub fn read(&mut self, mut take: impl FnMut(u32, &Key, &Distribution)) {
        self.free_left();
        // Kernels before 5.13 cannot.
        if self.read_batches(&mut take).is_ok() {
            return;
        }
        take(OVERFLOW_PLACE, &OVERFLOW, &self.distribution(OVERFLOW_PLACE));
        for (Plain(key), place) in self.places.iter().flatten() {
            take(place, &key, &self.distribution(place));
        }
    }

    fn read_batches(&mut self, take: &mut impl FnMut(u32, &Key, &Distribution)) -> std::io::Result<()> {
        let Self { keys, place_batch, distribution_batch, .. } = self;
        keys.fill(None);
        let mut last = OVERFLOW_PLACE;
        let mut note = |place: u32, key: &Key| {
            if let Some(known) = keys.get_mut(place as usize) {
                *known = Some(*key);
                last = last.max(place);
            }
        };
        note(OVERFLOW_PLACE, &OVERFLOW);
        place_batch.read(|key, place| {
            place.iter().for_each(|place| note(*place, key));
            true
        })?;
        distribution_batch.read(|&place, values| {
            if let Some(Some(key)) = keys.get(place as usize) {
                take(place, key, &sum(values.iter()));
            }
            place < last
        })
    }

    /// Takes the place of a distribution whose cgroup is gone back. It is free from the next reading on.
    pub fn forget(&mut self, key: &Key, place: u32) {
        if self.places.remove(&Plain(*key)).is_ok() {
            self.left.push(place);
        }
    }

    /// Gives places that were taken back to whoever comes next.
    fn free_left(&mut self) {
        if self.left.is_empty() {
            return;
        }
        let generation = self.generation.get(&0, 0).unwrap_or(0).wrapping_add(1);
        if self.generation.set(0, generation, 0).is_err() {
            return;
        }
        let cpus = self.distributions.get(&OVERFLOW_PLACE, 0).map_or(0, |values| values.len());
        for place in self.left.drain(..) {
            let Ok(empty) = PerCpuValues::try_from(vec![Plain(Distribution::EMPTY); cpus]) else { return };
            if self.distributions.set(place, empty, 0).is_ok() {
                // There is room for all places; one that cannot be written is never given out again.
                let _pushed = self.free_places.push(place, 0);
            }
        }
    }

    fn distribution(&self, place: u32) -> Distribution {
        let values = self.distributions.get(&place, 0).ok();
        values.map_or(Distribution::EMPTY, |values| sum(values.iter().map(|Plain(value)| value)))
    }

    /// Reads the counts of all files.
    pub fn files(&self) -> Vec<(FileKey, FileCounts)> {
        self.files.iter().flatten().map(|(Plain(key), Plain(counts))| (key, counts)).collect()
    }

    /// Frees the place of a file.
    pub fn forget_file(&mut self, key: &FileKey) {
        // That it is gone already is what we want.
        let _gone = self.files.remove(&Plain(*key));
    }

    /// Operations on files that found no room.
    pub fn files_lost(&self) -> u64 {
        self.files_lost.get(&0, 0).map_or(0, |values| values.iter().sum())
    }
}

fn data(map: &Map) -> Result<&MapData> {
    match map {
        Map::PerCpuArray(data) | Map::HashMap(data) => Ok(data),
        _ => bail!("a map of another type: rebuild the object (cargo xtask ebpf)"),
    }
}

/// The counts of all CPUs.
fn sum<'a>(values: impl Iterator<Item = &'a Distribution>) -> Distribution {
    let mut sum = Distribution::EMPTY;
    for value in values {
        sum.bytes = sum.bytes.wrapping_add(value.bytes);
        sum.time_ns = sum.time_ns.wrapping_add(value.time_ns);
        sum.untimed = sum.untimed.wrapping_add(value.untimed);
        for (sum, value) in sum.buckets.iter_mut().zip(value.buckets) {
            *sum = sum.wrapping_add(value);
        }
    }
    sum
}

/// Fills a table of the object: the word of each number.
///
/// # Errors
///
/// If the object has no such table, or it is too short.
pub fn fill_table(ebpf: &mut Ebpf, name: &str, words: impl Iterator<Item = (u32, u32)>) -> Result<()> {
    let map = ebpf.map_mut(name).with_context(|| format!("the eBPF object has no map {name}"))?;
    let mut table: Array<&mut MapData, u32> = Array::try_from(map)?;
    for (number, word) in words {
        table.set(number, word, 0).with_context(|| format!("cannot write {name}[{number}]"))?;
    }
    Ok(())
}
