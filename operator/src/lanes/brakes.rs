//! Brakes: they wait for no write, of this object or another.

use jiff::Timestamp;

use super::{Governed, Remembered};
use crate::context::Context;
use crate::observe::BootConfigMap;
use crate::observe::index::Owner;
use crate::plan;
use crate::queue::Again;

/// Brakes the pods that are not held enough, and says when to come again.
pub(super) fn visit(context: &Context, owner: &Owner) -> Again {
    let Some(governed) = Governed::of(context, owner) else { return Again::Never };
    let plan = {
        let mut remembered = governed.lock();
        let Remembered { memory, .. } = &mut *remembered;
        let now = Timestamp::now();
        let seen = governed.observe_demand(memory, now);
        let plan = plan::brakes(&seen, now);
        memory.braked(plan.onset.as_ref(), seen.boot.as_ref().map(BootConfigMap::releases).unwrap_or_default());
        plan
    };
    governed.order(plan.orders);
    plan.again.map_or(Again::Never, Again::In)
}
