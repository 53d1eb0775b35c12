//! What a call asks for: its opening header read, its caller identified, its route found.

use std::time::Duration;

use bytes::Bytes;
use plugd_core::wire::{Auth, Open, OpenError};
use plugd_core::{Caller, Origin, Principal, Status};
use tracing::{Span, field};

use crate::audit::Record;
use crate::identity::{Gate, Identity, Refused};
use crate::plugin::Route;
use crate::router::{Ask, Router, Then};

/// The longest opening header that is remembered, in bytes: it holds a plugin and an operation of ordinary names.
const RECENT_LEN_MAX: usize = 64;

/// Reads the opening header, and finds what it names.
pub(super) fn ask<'r>(
    router: &Router,
    payload: &Bytes,
    mut who: Who<'_>,
    recent: &'r mut Option<Recent>,
    mut traces: Traces<'_>,
) -> Result<(&'r Route, Ask), Refusal> {
    let generation = router.generation();
    let principal = &who.caller.principal;
    let holds = traces.are_off()
        && who.identity.is_fresh(generation)
        && recent.as_ref().is_some_and(|recent| recent.holds_for(payload, generation, principal));
    let ask = match holds {
        true => Ask::default(),
        false => {
            // What is not called any more is not held while something else is looked for.
            *recent = None;
            let malformed = |error: OpenError| {
                traces.span.record("peer", field::display(&who.caller));
                Status::invalid_argument("malformed-header", error.to_string()).with_origin(Origin::Server)
            };
            let open = Open::decode(payload).map_err(malformed)?;
            traces.span.record("command", field::debug(&open.command));
            traces.note(&open, None);
            let checked = match who.identity.is_settled(open.auth.as_ref()) {
                true => Ok(()),
                false => who.check(router, open.auth.as_ref()),
            };
            // Who calls may be known only since then.
            traces.span.record("peer", field::display(&who.caller));
            checked?;
            let route = router.find(&open.command, who.caller)?;
            traces.note(&open, Some(&route));
            let ask = Ask::of(open);
            let header: &[u8] = if ask.is_bare() { payload } else { &[] };
            *recent = Some(Recent::new(header, generation, route, who.caller.principal.clone()));
            ask
        }
    };
    let recent = recent.as_ref().expect("it holds, or was made just now");
    Ok((&recent.route, ask))
}

/// Who a connection's caller is, and how that is found out.
pub(super) struct Who<'c> {
    pub(super) caller: &'c mut Caller,
    pub(super) identity: &'c mut Identity,
    pub(super) gate: &'c Gate,
}

impl Who<'_> {
    /// Looks at what the call proves, before anything else of it is.
    fn check(&mut self, router: &Router, auth: Option<&Auth>) -> Result<(), Refused> {
        let (generation, plugins) = router.numbered_plugins();
        self.identity.check(auth, self.caller, (generation, plugins.tokens()), self.gate)
    }
}

/// Where a call leaves its traces.
pub(super) struct Traces<'t> {
    pub(super) span: &'t Span,
    pub(super) record: Option<&'t mut Record>,
}

impl Traces<'_> {
    fn note(&mut self, open: &Open<'_>, route: Option<&Route>) {
        if let Some(record) = &mut self.record {
            record.note(open, route);
        }
    }

    fn are_off(&self) -> bool {
        self.record.is_none() && self.span.is_disabled()
    }
}

/// Why a call does not come to its handler.
pub(super) struct Refusal {
    pub(super) status: Status,
    pub(super) then: Then,
    /// How long the answer waits.
    pub(super) delay: Duration,
    /// In how long the same call would pass, where that is known.
    pub(super) wait: Option<Duration>,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Refusal {
        Refusal { status, then: Then::Continue, delay: Duration::ZERO, wait: None }
    }
}

impl From<Refused> for Refusal {
    fn from(Refused { status, delay, wait }: Refused) -> Refusal {
        Refusal { status, then: Then::Close, delay, wait }
    }
}

/// The route of the call before. Busy callers send the same opening header again and again, and reading and finding it is a
/// tenth of a short call.
pub(super) struct Recent {
    /// The header, when it held a command and nothing else, and was short; otherwise empty.
    header: [u8; RECENT_LEN_MAX],
    header_len: usize,
    /// That of the plugins that it was found in.
    generation: u64,
    route: Route,
    /// Who was allowed to take it; whoever is somebody else by now has to be looked at again.
    principal: Principal,
}

impl Recent {
    fn new(header: &[u8], generation: u64, route: Route, principal: Principal) -> Recent {
        let mut recent = Recent { header: [0; RECENT_LEN_MAX], header_len: 0, generation, route, principal };
        if let Some(place) = recent.header.get_mut(..header.len()) {
            place.copy_from_slice(header);
            recent.header_len = header.len();
        }
        recent
    }

    fn holds_for(&self, header: &[u8], generation: u64, principal: &Principal) -> bool {
        self.generation == generation && &self.header[..self.header_len] == header && self.principal == *principal
    }
}
