"""The core: plain objects that decide; no framework is imported below this folder."""
