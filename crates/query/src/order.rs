//! The order of a heap's elements.

/// Compares values of a type by the result of their method `order`.
macro_rules! ordered {
    ($type:ty) => {
        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.order() == other.order()
            }
        }
        impl Eq for $type {}
        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $type {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                self.order().cmp(&other.order())
            }
        }
    };
}

pub(super) use ordered;
