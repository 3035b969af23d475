//! Names of block devices, by the links of `/sys/dev/block`.
//!
//! Refuses: guesses. A device without a link keeps its numbers as its name.

use std::collections::HashMap;

use super::usage::DeviceNumber;

/// Names that are kept; beyond them all are forgotten.
const NAMES_MAX: usize = 4_096;

/// The names that were asked for.
#[derive(Default)]
pub struct DeviceNames {
    names: HashMap<DeviceNumber, String>,
}

impl DeviceNames {
    /// Learns the name of a device.
    pub fn learn(&mut self, device: DeviceNumber) {
        if self.names.contains_key(&device) {
            return;
        }
        if self.names.len() >= NAMES_MAX {
            self.names.clear();
        }
        let numbers = format!("{}:{}", device.major, device.minor);
        let link = std::fs::read_link(format!("/sys/dev/block/{numbers}")).ok();
        let name = link.as_ref().and_then(|link| link.file_name()?.to_str());
        self.names.insert(device, name.map_or(numbers, str::to_owned));
    }

    /// The name: `sda`, or `8:0` if it has none.
    pub fn name(&self, device: DeviceNumber) -> String {
        let numbers = || format!("{}:{}", device.major, device.minor);
        self.names.get(&device).cloned().unwrap_or_else(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_known() {
        let mut names = DeviceNames::default();
        let check = |names: &mut DeviceNames, device: DeviceNumber, expected: &str| {
            names.learn(device);
            assert_eq!(names.name(device), expected);
        };
        check(&mut names, DeviceNumber { major: 4000, minor: 7 }, "4000:7");
        for link in std::fs::read_dir("/sys/dev/block").into_iter().flatten().flatten().take(3) {
            let numbers = link.file_name().into_string().expect("digits");
            let (major, minor) = numbers.split_once(':').expect("two");
            let device =
                DeviceNumber { major: major.parse().expect("digits"), minor: minor.parse().expect("digits") };
            let target = std::fs::read_link(link.path()).expect("a link");
            check(&mut names, device, target.file_name().and_then(|name| name.to_str()).expect("text"));
        }
    }
}
