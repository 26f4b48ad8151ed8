//! What a rule asks of the values that it reads, and whether that holds.
//!
//! A value that is not there is no number, and what is compared with it is neither true nor false: a rule never fires,
//! and never ends, by what nobody measured.

/// A question with the answer yes or no.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    Compare {
        left: Value,
        operator: Operator,
        right: Value,
    },
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    /// The first, where the second does not hold.
    Unless(Box<Self>, Box<Self>),
}

/// A number made of what is read. Words are numbers too: their places in their list.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Number(f64),
    /// The term at this place.
    Term(usize),
    Negated(Box<Self>),
    Absolute(Box<Self>),
    Sum(Box<Self>, Box<Self>),
    Difference(Box<Self>, Box<Self>),
    Product(Box<Self>, Box<Self>),
    /// By nothing it is no number.
    Quotient(Box<Self>, Box<Self>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
    Equal,
    NotEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    Holds,
    HoldsNot,
    /// Something that it takes was not measured.
    Unknown,
}

impl Test {
    /// `values` are those of the rule's terms; what is not there is no number.
    #[must_use]
    pub fn judge(&self, values: &[f64]) -> Verdict {
        match self {
            Self::Compare { left, operator, right } => match (left.of(values), right.of(values)) {
                (Some(left), Some(right)) => Verdict::of(operator.compares(left, right)),
                _ => Verdict::Unknown,
            },
            Self::And(first, second) => match (first.judge(values), second.judge(values)) {
                (Verdict::HoldsNot, _) | (_, Verdict::HoldsNot) => Verdict::HoldsNot,
                (Verdict::Holds, Verdict::Holds) => Verdict::Holds,
                _ => Verdict::Unknown,
            },
            // A host that does not measure the one is judged by the other.
            Self::Or(first, second) => match (first.judge(values), second.judge(values)) {
                (Verdict::Holds, _) | (_, Verdict::Holds) => Verdict::Holds,
                (Verdict::Unknown, Verdict::Unknown) => Verdict::Unknown,
                _ => Verdict::HoldsNot,
            },
            Self::Unless(first, second) => match (first.judge(values), second.judge(values)) {
                (Verdict::Holds, Verdict::Holds) => Verdict::HoldsNot,
                (said, _) => said,
            },
        }
    }

    /// Both sides of the first comparison: what is shown of an alert.
    #[must_use]
    pub fn shown(&self, values: &[f64]) -> (Option<f64>, Option<f64>) {
        let (left, _, right) = self.first();
        (left.of(values), right.of(values))
    }

    /// The first comparison as a person reads it.
    #[must_use]
    pub fn first(&self) -> (&Value, Operator, &Value) {
        match self {
            Self::Compare { left, operator, right } => (left, *operator, right),
            Self::And(first, _) | Self::Or(first, _) | Self::Unless(first, _) => first.first(),
        }
    }
}

impl Value {
    #[must_use]
    pub fn of(&self, values: &[f64]) -> Option<f64> {
        let number = match self {
            Self::Number(number) => *number,
            Self::Term(place) => *values.get(*place)?,
            Self::Negated(value) => -value.of(values)?,
            Self::Absolute(value) => value.of(values)?.abs(),
            Self::Sum(left, right) => left.of(values)? + right.of(values)?,
            Self::Difference(left, right) => left.of(values)? - right.of(values)?,
            Self::Product(left, right) => left.of(values)? * right.of(values)?,
            Self::Quotient(left, right) => left.of(values)? / right.of(values)?,
        };
        number.is_finite().then_some(number)
    }
}

impl Operator {
    pub const ALL: [Self; 6] =
        [Self::Greater, Self::Less, Self::GreaterOrEqual, Self::LessOrEqual, Self::Equal, Self::NotEqual];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Greater => ">",
            Self::Less => "<",
            Self::GreaterOrEqual => ">=",
            Self::LessOrEqual => "<=",
            Self::Equal => "==",
            Self::NotEqual => "!=",
        }
    }

    /// The same with its sides changed over.
    #[must_use]
    pub const fn mirrored(self) -> Self {
        match self {
            Self::Greater => Self::Less,
            Self::Less => Self::Greater,
            Self::GreaterOrEqual => Self::LessOrEqual,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Equal | Self::NotEqual => self,
        }
    }

    /// What holds where it does not.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Greater => Self::LessOrEqual,
            Self::Less => Self::GreaterOrEqual,
            Self::GreaterOrEqual => Self::Less,
            Self::LessOrEqual => Self::Greater,
            Self::Equal => Self::NotEqual,
            Self::NotEqual => Self::Equal,
        }
    }

    /// Values have six digits after the point at most: what differs by less is the noise of arithmetic.
    #[must_use]
    pub fn compares(self, left: f64, right: f64) -> bool {
        let is_same = (left - right).abs() <= 1e-9 * left.abs().max(right.abs()).max(1.0);
        match self {
            Self::Greater => left > right && !is_same,
            Self::Less => left < right && !is_same,
            Self::GreaterOrEqual => left > right || is_same,
            Self::LessOrEqual => left < right || is_same,
            Self::Equal => is_same,
            Self::NotEqual => !is_same,
        }
    }
}

impl Verdict {
    const fn of(holds: bool) -> Self {
        if holds { Self::Holds } else { Self::HoldsNot }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn above(place: usize, than: f64) -> Box<Test> {
        let (left, right) = (Value::Term(place), Value::Number(than));
        Box::new(Test::Compare { left, operator: Operator::Greater, right })
    }

    #[test]
    fn what_was_not_measured_neither_fires_a_rule_nor_ends_it() {
        let test = above(0, 1.0);
        assert_eq!(test.judge(&[2.0]), Verdict::Holds);
        assert_eq!(test.judge(&[1.0]), Verdict::HoldsNot);
        assert_eq!(test.judge(&[f64::NAN]), Verdict::Unknown);
        assert_eq!(test.judge(&[]), Verdict::Unknown);
        let both = Test::And(above(0, 1.0), above(1, 1.0));
        let judged = |first, second| both.judge(&[first, second]);
        assert_eq!(judged(2.0, f64::NAN), Verdict::Unknown);
        assert_eq!(judged(0.0, f64::NAN), Verdict::HoldsNot);
        let one = Test::Or(above(0, 1.0), above(1, 1.0));
        let judged = |first, second| one.judge(&[first, second]);
        assert_eq!(judged(f64::NAN, 2.0), Verdict::Holds);
        assert_eq!(judged(f64::NAN, 0.0), Verdict::HoldsNot);
        assert_eq!(judged(f64::NAN, f64::NAN), Verdict::Unknown);
        let unless = Test::Unless(above(0, 1.0), above(1, 1.0));
        let judged = |first, second| unless.judge(&[first, second]);
        assert_eq!(judged(2.0, f64::NAN), Verdict::Holds);
        assert_eq!(judged(2.0, 2.0), Verdict::HoldsNot);
        assert_eq!(judged(f64::NAN, 0.0), Verdict::Unknown);
    }

    #[test]
    fn a_part_of_nothing_is_no_number() {
        let of = |left: f64, right: f64| {
            Value::Quotient(Box::new(Value::Number(left)), Box::new(Value::Number(right))).of(&[])
        };
        assert_eq!((of(1.0, 0.0), of(0.0, 0.0), of(1.0, 4.0)), (None, None, Some(0.25)));
    }

    #[test]
    fn a_sum_of_decimals_is_what_it_is_written_as() {
        assert!(!Operator::Greater.compares(0.1 + 0.2, 0.3) && Operator::Equal.compares(0.1 + 0.2, 0.3));
        assert!(Operator::Greater.compares(0.300_001, 0.3) && !Operator::GreaterOrEqual.compares(0.299_999, 0.3));
    }
}
