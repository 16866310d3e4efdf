//! Histories of a broker that does everything right, of any length: to measure with, and to plant
//! anomalies into.
