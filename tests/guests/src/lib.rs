//! Plugins that tests load, each of them an example of this package.
#![no_std]
