//! Profiles -> a flame graph: an interactive SVG, or the same in a page of its own.
//!
//! Drawn by inferno. Refuses: scripts or fonts from a network: a file is complete in itself.

use std::borrow::Borrow;

use anyhow::{Context, Result};
use inferno::flamegraph::{self, Options, color::Palette};

use super::folded::folded;
use crate::telemetry::Profile;

/// The flame graph as SVG.
///
/// # Errors
///
/// If there is no sample to draw.
pub fn svg<P: Borrow<Profile>>(profiles: &[P], title: &str) -> Result<String> {
    let folded = folded(profiles);
    anyhow::ensure!(!folded.is_empty(), "there are no samples to draw");
    let mut options = Options::default();
    options.title = title.to_owned();
    options.count_name = "samples".to_owned();
    options.colors = Palette::Multi(flamegraph::color::MultiPalette::Java);
    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, folded.lines(), &mut svg).context("cannot draw the flame graph")?;
    String::from_utf8(svg).context("the flame graph is not UTF-8")
}

/// The flame graph as a page.
///
/// # Errors
///
/// As [`svg`].
pub fn html<P: Borrow<Profile>>(profiles: &[P], title: &str) -> Result<String> {
    let svg = svg(profiles, title)?;
    let start = svg.find("<svg").context("the flame graph holds no drawing")?;
    let title = title.replace('&', "&amp;").replace('<', "&lt;");
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <style>body{{margin:0}}svg{{width:100%;height:auto}}</style>\n{}\n</html>\n",
        &svg[start..]
    ))
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn both_forms_hold_every_function() {
        let profiles = fixture::profiles();
        for text in [svg(&profiles, "t").expect("svg"), html(&profiles, "a<b").expect("html")] {
            for name in ["main", "outer", "inner", "vfs_read"] {
                assert!(text.contains(name), "{name} in {text}");
            }
        }
        assert!(svg::<Profile>(&[], "t").is_err());
    }
}
