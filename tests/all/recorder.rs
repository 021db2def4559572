//! The recorder from outside: the program itself, in network namespaces, queried over its socket with its own verbs.

mod audit;
mod certs;
mod clocks;
mod crowds;
mod ending;
mod exactness;
mod extcap;
mod faults;
mod following;
mod health;
mod honest;
mod honest_start;
mod hostile_readers;
mod interfaces;
mod over_ip;
mod over_tls;
mod pressure;
mod privacy;
mod readers;
mod remote;
mod replaying;
mod restart;
mod running;
mod sandbox;
mod supervisor;
mod unit;
