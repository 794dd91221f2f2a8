//! LLM provider adapters as tower Layers.
