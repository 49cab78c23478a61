//! A counter as the measurement of a Criterion benchmark, in place of wall-clock time.
//!
//! ```no_run
//! use cellbench_criterion::measurement::CounterMeasurement;
//! use criterion::Criterion;
//!
//! let instructions = CounterMeasurement::open("instructions")?;
//! let criterion = Criterion::default().with_measurement(instructions);
//! # Ok::<(), cellbench_criterion::measurement::MeasurementError>(())
//! ```

use std::cell::RefCell;

use cellbench_host::counters::{Plan, Reading, ThreadCounters, Unavailable};
use cellbench_host::{Roots, affinity};
use criterion::Throughput;
use criterion::measurement::{Measurement, ValueFormatter};

/// Why an event cannot be the measurement.
#[derive(Debug, thiserror::Error)]
pub enum MeasurementError {
    /// No such event on this host.
    #[error("unknown event `{name}`; this host has {known}")]
    Unknown {
        /// Event asked for.
        name: String,
        /// Events there are.
        known: String,
    },
    /// The event cannot be counted.
    #[error("event `{name}` cannot be counted: {reason}")]
    Unavailable {
        /// Event asked for.
        name: String,
        /// Reason for which the event cannot be counted.
        reason: Unavailable,
    },
    /// The kernel does not tell the CPU, on which the events depend.
    #[error("event `{name}`: sched_getcpu: {source}")]
    NoCpu {
        /// Event asked for.
        name: String,
        /// Error of the system call.
        source: std::io::Error,
    },
}

/// One event of the thread that opened it, which must also run the benchmarks.
pub struct CounterMeasurement {
    name: String,
    counters: RefCell<ThreadCounters>,
    formatter: EventFormatter,
}

impl CounterMeasurement {
    /// Opens the event called `name` (as [`Plan::full`] names them).
    ///
    /// # Errors
    /// [`MeasurementError`] if there is no such event or it cannot be counted here.
    pub fn open(name: &str) -> Result<Self, MeasurementError> {
        let cpu = affinity::current_cpu()
            .map_err(|source| MeasurementError::NoCpu { name: name.to_owned(), source })?;
        let plan = Plan::full(&Roots::live(), cpu);
        let known = plan.events().map(|event| event.name.as_str()).collect::<Vec<_>>().join(", ");
        let plan = plan
            .only(name)
            .ok_or_else(|| MeasurementError::Unknown { name: name.to_owned(), known })?;
        let counters = ThreadCounters::open(&plan);
        if let Some(reason) = counters.why_not(name).cloned() {
            return Err(MeasurementError::Unavailable { name: name.to_owned(), reason });
        }
        Ok(Self {
            name: name.to_owned(),
            counters: RefCell::new(counters),
            formatter: EventFormatter { name: name.to_owned() },
        })
    }

    /// Returns a count that Criterion can use, which has no way to hear of a failure.
    fn value(&self) -> f64 {
        let mut counters = self.counters.borrow_mut();
        counters
            .stop()
            .unwrap_or_else(|error| panic!("event `{}` cannot be stopped: {error}", self.name));
        match counters.read().remove(&self.name) {
            Some(reading @ Reading::Counted { .. }) => reading.scaled().unwrap_or(f64::NAN),
            Some(Reading::Unavailable(reason)) => {
                panic!("event `{}` has no count: {reason}", self.name)
            }
            None => unreachable!("the plan consists of this event"),
        }
    }
}

impl Measurement for CounterMeasurement {
    type Intermediate = ();
    type Value = f64;

    fn start(&self) -> Self::Intermediate {
        self.counters
            .borrow_mut()
            .start()
            .unwrap_or_else(|error| panic!("event `{}` cannot be started: {error}", self.name));
    }

    fn end(&self, (): Self::Intermediate) -> Self::Value {
        self.value()
    }

    fn add(&self, a: &Self::Value, b: &Self::Value) -> Self::Value {
        a + b
    }

    fn zero(&self) -> Self::Value {
        0.0
    }

    fn to_f64(&self, value: &Self::Value) -> f64 {
        *value
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &self.formatter
    }
}

/// Prints counts with the event's name as the unit.
struct EventFormatter {
    name: String,
}

impl EventFormatter {
    /// Divides by a power of 1000 such that `typical` reads well; the unit that results.
    fn scale(&self, typical: f64, values: &mut [f64]) -> &'static str {
        let (divisor, unit) = match typical.abs() {
            0.0..1e3 => (1.0, "events"),
            1e3..1e6 => (1e3, "K events"),
            1e6..1e9 => (1e6, "M events"),
            _ => (1e9, "G events"),
        };
        for value in values {
            *value /= divisor;
        }
        unit
    }
}

impl ValueFormatter for EventFormatter {
    fn format_value(&self, value: f64) -> String {
        let mut scaled = [value];
        let unit = self.scale(value, &mut scaled);
        format!("{:.3} {unit} ({})", scaled[0], self.name)
    }

    fn scale_values(&self, typical: f64, values: &mut [f64]) -> &'static str {
        self.scale(typical, values)
    }

    fn scale_throughputs(
        &self,
        _typical: f64,
        throughput: &Throughput,
        values: &mut [f64],
    ) -> &'static str {
        let (per, unit) = match *throughput {
            Throughput::Elements(n) => (n, "events/element"),
            Throughput::ElementsAndBytes { elements, .. } => (elements, "events/element"),
            Throughput::Bytes(n) | Throughput::BytesDecimal(n) => (n, "events/byte"),
            Throughput::Bits(n) => (n, "events/bit"),
        };
        for value in values {
            *value /= per as f64;
        }
        unit
    }

    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        "events"
    }
}
