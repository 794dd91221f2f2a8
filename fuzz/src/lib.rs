//! Fuzz targets of the policy crates.
