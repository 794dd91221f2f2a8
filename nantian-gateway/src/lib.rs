//! A thin gateway that stacks the Nantian policy crates on Gateway API routes.
