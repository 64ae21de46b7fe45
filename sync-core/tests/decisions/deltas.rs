//! Differences, as properties.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use sync_core::delta::{apply, compare, diff, normalise, touches};
use sync_core::model::{Delta, Value};
use sync_core::policy::{Policies, Policy};

use crate::arbitrary::{config, number, value};
use crate::notation::json;

/// `n` is a counter, `t` a set, `in/n` a counter again; everything else is merged by default.
fn policies() -> Policies {
    let fields = [("n", Policy::Counter), ("t", Policy::Set), ("in/n", Policy::Counter)];
    let fields = fields.into_iter().map(|(path, policy)| (path.to_owned(), policy)).collect();
    Policies { fields, ..Policies::default() }
}

/// A map with fields of these policies, and others.
fn map() -> impl Strategy<Value = Value> {
    let small = (-9..9_i64).prop_map(Value::Int);
    let element = (0..5_i64).prop_map(Value::Int);
    let field = prop_oneof![
        (Just("n"), small.clone()),
        (Just("t"), vec(element, 0..5).prop_map(Value::List)),
        (Just("in"), btree_map("[nab]", small.clone(), 0..3).prop_map(Value::Map)),
        (prop_oneof![Just("a"), Just("b"), Just("n"), Just("in")], value()),
        (prop_oneof![Just("a"), Just("b")], small),
    ];
    vec(field, 0..6).prop_map(|fields| {
        Value::Map(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<BTreeMap<_, _>>())
    })
}

fn normal(mut value: Value, policy: Policy) -> Value {
    normalise(&policies(), policy, &mut value);
    value
}

fn max(a: &Value, b: &Value) -> Value {
    apply(&Delta::Max(b.clone()), Some(a)).unwrap()
}

fn min(a: &Value, b: &Value) -> Value {
    apply(&Delta::Min(b.clone()), Some(a)).unwrap()
}

#[test]
fn integers_and_floats_are_compared_exactly_and_of_equal_ones_the_integer_comes_first() {
    let check = |smaller: &str, larger: &str| {
        let [smaller, larger] = [smaller, larger].map(json);
        assert_eq!(compare(&smaller, &larger), Some(Ordering::Less), "{smaller:?} {larger:?}");
        assert_eq!(compare(&larger, &smaller), Some(Ordering::Greater), "{smaller:?} {larger:?}");
    };
    check("1", "1.5");
    check("-1.5", "-1");
    check("-0.5", "0");
    check("0", "0.5");
    check("9007199254740993", "9007199254740994.0");
    check("9007199254740994", "9007199254740994.0");
    check("9007199254740994.0", "9007199254740995");
    check("9223372036854775807", "9223372036854775808.0");
    check("-9223372036854775808", "-9223372036854775808.0");
    check("-1e300", "-9223372036854775808");
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_difference_leads_from_one_value_to_the_other(from in map(), to in map()) {
        let [from, to] = [from, to].map(|value| normal(value, Policy::Fields));
        let delta = diff(&policies(), Policy::Fields, Some(&from), &to).unwrap();
        prop_assert_eq!(apply(&delta, Some(&from)).unwrap(), to);
    }

    #[test]
    fn a_difference_of_sets_leads_from_one_to_the_other(
        from in vec(value(), 0..6),
        to in vec(value(), 0..6),
    ) {
        let [from, to] = [from, to].map(Value::List);
        let delta = diff(&policies(), Policy::Set, Some(&from), &to).unwrap();
        prop_assert_eq!(apply(&delta, Some(&from)).unwrap(), normal(to, Policy::Set));
    }

    #[test]
    fn a_difference_of_counters_leads_from_one_to_the_other_or_there_is_none(from in any::<i64>(), to in any::<i64>()) {
        let [from, to] = [from, to].map(Value::Int);
        if let Some(delta) = diff(&policies(), Policy::Counter, Some(&from), &to) {
            prop_assert_eq!(apply(&delta, Some(&from)).unwrap(), to);
        }
    }

    #[test]
    fn differences_that_do_not_touch_commute(base in map(), left in map(), right in map()) {
        let [base, left, right] = [base, left, right].map(|value| normal(value, Policy::Fields));
        let left = diff(&policies(), Policy::Fields, Some(&base), &left).unwrap();
        let right = diff(&policies(), Policy::Fields, Some(&base), &right).unwrap();
        prop_assert_eq!(touches(&left, &right), touches(&right, &left));
        if !touches(&left, &right) {
            let one = apply(&left, Some(&base)).and_then(|value| apply(&right, Some(&value)));
            let other = apply(&right, Some(&base)).and_then(|value| apply(&left, Some(&value)));
            prop_assert!(one.is_ok(), "{:?}", one);
            prop_assert_eq!(one, other);
        }
    }

    #[test]
    fn the_order_of_numbers_is_total_and_exact(a in number(), b in number(), c in number()) {
        let order = |a: &Value, b: &Value| compare(a, b).unwrap();
        prop_assert_eq!(order(&a, &b), order(&b, &a).reverse());
        prop_assert_eq!(order(&a, &b).is_eq(), a == b);
        if order(&a, &b).is_le() && order(&b, &c).is_le() {
            prop_assert!(order(&a, &c).is_le());
        }
        if let (Value::Int(int), Value::Float(float)) = (&a, &b) {
            // Floats up to 2^127 are exact as wide integers and a rest.
            let whole = float.trunc().clamp(-1e30, 1e30) as i128;
            let exact = i128::from(*int).cmp(&whole).then(0.0.partial_cmp(&float.fract()).unwrap());
            prop_assert_eq!(order(&a, &b), exact.then(Ordering::Less));
        }
    }

    #[test]
    fn the_larger_and_the_smaller_do_not_depend_on_the_order(a in number(), b in number(), c in number()) {
        prop_assert_eq!(max(&a, &b), max(&b, &a));
        prop_assert_eq!(min(&a, &b), min(&b, &a));
        prop_assert_eq!(max(&max(&a, &b), &c), max(&a, &max(&b, &c)));
        prop_assert_eq!(min(&min(&a, &b), &c), min(&a, &min(&b, &c)));
        prop_assert_eq!(max(&a, &a), a);
    }
}
