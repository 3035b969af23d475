#!/bin/sh
# sbom.sh FILE: the crates that the agent is built from, those of its build included, in CycloneDX 1.5. Needs cargo-cyclonedx, and
# runs at the root of the source.
set -eu
target=$(rustc -vV | sed -n 's/^host: //p')
# The same source has the same SBOM: no serial number of chance, no time of its making but that of the source.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0}
export SOURCE_DATE_EPOCH
cargo cyclonedx --quiet --manifest-path collector/Cargo.toml --format json --spec-version 1.5 \
    --target "$target" --override-filename kansoku.cdx
# It writes one beside each manifest of the workspace.
mv collector/kansoku.cdx.json "$1"
find . -path ./target -prune -o -name kansoku.cdx.json -type f ! -samefile "$1" -exec rm -f {} +
