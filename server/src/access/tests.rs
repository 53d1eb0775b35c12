//! The matrix of identities and commands, generated, and compared with a model that knows nothing of how rules are kept.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use async_trait::async_trait;
use plugd_core::{Call, Caller, Code, Descriptor, Handler, Operation, Origin, Peer, Principal, Registry, Status};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::Config;
use crate::layers::Layers;
use crate::plugin::Plugins;

const OPERATIONS: [&str; 3] = ["get", "put", "run"];
const TOKENS: [&str; 2] = ["ci", "ops"];
const CERTIFICATES: [&str; 3] = ["a.example", "b.example", "spiffe://c/d"];
const GROUPS: [&str; 3] = ["one", "two", "three"];

/// A rule as an operator would think of it: texts and nothing else.
#[derive(Debug, Clone)]
struct Sheet {
    groups: BTreeMap<String, Vec<String>>,
    allow: Vec<String>,
    deny: Vec<String>,
    operations: BTreeMap<String, (Option<Vec<String>>, Vec<String>)>,
}

impl Sheet {
    fn access(&self) -> Access {
        let operations = self.operations.iter().map(|(name, (allow, deny))| match allow {
            Some(allow) => (name.clone(), json!({ "allow": allow, "deny": deny })),
            None => (name.clone(), json!({ "deny": deny })),
        });
        let operations: serde_json::Map<_, _> = operations.collect();
        let section = json!({ "allow": self.allow, "deny": self.deny, "operations": operations });
        let section: AccessSection = serde_json::from_value(section).expect("a table");
        let (groups, errors) = Groups::read(&self.groups, TOKENS.map(str::to_owned).to_vec());
        assert_eq!(errors, []);
        let operations = OPERATIONS.map(|name| Operation::new(name, ""));
        section.resolve(Some(&operations), &groups).expect("a good rule")
    }

    /// Whether `caller` may call, read off the texts one by one.
    fn says(&self, operation: &str, caller: &Caller) -> bool {
        let own = self.operations.get(operation);
        let allow = own.and_then(|(allow, _)| allow.as_ref()).unwrap_or(&self.allow);
        let denied_here = own.is_some_and(|(_, deny)| self.names(deny, caller));
        !self.names(&self.deny, caller) && !denied_here && self.names(allow, caller)
    }

    fn names(&self, texts: &[String], caller: &Caller) -> bool {
        texts.iter().any(|text| match text.split_once(':') {
            None => true,
            Some(("group", name)) => self.names(&self.groups[name], caller),
            Some((kind, value)) => proofs(caller).contains(&(kind, value.to_owned())),
        })
    }
}

/// Everything that a rule may say to mean `caller`, networks of all lengths among it.
fn proofs(caller: &Caller) -> Vec<(&'static str, String)> {
    let mut proofs = Vec::new();
    proofs.extend(caller.principal.uid().map(|uid| ("uid", uid.to_string())));
    proofs.extend(caller.principal.uid().filter(|uid| *uid == 0).map(|_| ("user", "root".to_owned())));
    proofs.extend(caller.principal.token().map(|name| ("token", name.to_owned())));
    proofs.extend(caller.principal.certificate_names().iter().map(|name| ("cert", name.clone())));
    if let Peer::Tcp(address) = caller.peer {
        let bits: String = match address.ip() {
            IpAddr::V4(ip) => ip.octets().iter().map(|byte| format!("{byte:08b}")).collect(),
            IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
                Some(ip) => ip.octets().iter().map(|byte| format!("{byte:08b}")).collect(),
                None => ip.octets().iter().map(|byte| format!("{byte:08b}")).collect(),
            },
        };
        for len in 0..=bits.len() {
            let padded: String = bits.chars().take(len).chain(std::iter::repeat('0')).take(bits.len()).collect();
            let first = match bits.len() {
                32 => IpAddr::from(u32::from_str_radix(&padded, 2).expect("bits").to_be_bytes()),
                _ => IpAddr::from(u128::from_str_radix(&padded, 2).expect("bits").to_be_bytes()),
            };
            proofs.push(("net", format!("{first}/{len}")));
            if let IpAddr::V4(first) = first {
                proofs.push(("net", format!("{}/{}", first.to_ipv6_mapped(), len + 96)));
            }
        }
    }
    proofs
}

fn ip() -> impl Strategy<Value = IpAddr> {
    // Few addresses that differ in few bits, so that rules and callers meet.
    let v4 = (prop_oneof![Just(10_u8), Just(11), Just(127)], 0_u8..2, 0_u8..4);
    let v4 = v4.prop_map(|(first, third, last)| Ipv4Addr::new(first, 0, third, last));
    prop_oneof![
        v4.clone().prop_map(IpAddr::V4),
        v4.prop_map(|ip| IpAddr::V6(ip.to_ipv6_mapped())),
        (0_u16..2, 0_u16..3).prop_map(|(first, last)| IpAddr::from([0x2001, 0xdb8 + first, 0, 0, 0, 0, 0, last])),
    ]
}

fn caller() -> impl Strategy<Value = Caller> {
    let names = proptest::sample::subsequence(CERTIFICATES.to_vec(), 0..=2);
    let token = option::of(proptest::sample::select(TOKENS.to_vec()));
    let known = (names, token).prop_map(|(names, token)| {
        let principal = match names.is_empty() {
            true => Principal::default(),
            false => Principal::default().with_certificate_names(names.into_iter().map(str::to_owned).collect()),
        };
        token.map_or(principal.clone(), |token| principal.with_token(token))
    });
    let token = option::of(proptest::sample::select(TOKENS.to_vec()));
    prop_oneof![
        (ip(), known).prop_map(|(ip, known)| Caller::new(Peer::Tcp(SocketAddr::new(ip, 9))).known_as(known)),
        (proptest::sample::select(vec![0_u32, 1, 1000]), token).prop_map(|(uid, token)| {
            let principal = Principal::of_uid(uid);
            Caller::new(Peer::Unix).known_as(token.map_or(principal.clone(), |token| principal.with_token(token)))
        }),
        Just(Caller::new(Peer::Memory)),
    ]
}

fn entry() -> impl Strategy<Value = String> {
    // A network is one of an address, so that some caller may be in it.
    let net = (ip(), 0_usize..=128).prop_map(|(ip, at)| {
        let nets: Vec<String> =
            proofs(&Caller::new(Peer::Tcp(SocketAddr::new(ip, 1)))).into_iter().map(|(_, net)| net).collect();
        format!("net:{}", nets[at % nets.len()])
    });
    prop_oneof![
        1 => Just("any".to_owned()),
        6 => net,
        3 => proptest::sample::select(vec!["uid:0", "uid:1", "uid:1000", "user:root"]).prop_map(str::to_owned),
        3 => proptest::sample::select(TOKENS.to_vec()).prop_map(|name| format!("token:{name}")),
        3 => proptest::sample::select(CERTIFICATES.to_vec()).prop_map(|name| format!("cert:{name}")),
    ]
}

fn list() -> impl Strategy<Value = Vec<String>> {
    vec(
        prop_oneof![4 => entry(), 1 => proptest::sample::select(GROUPS.to_vec()).prop_map(|name| format!("group:{name}"))],
        0..4,
    )
}

fn sheet() -> impl Strategy<Value = Sheet> {
    // Each group may hold those before it, and never itself.
    let groups = (vec(entry(), 0..3), vec(entry(), 0..3), vec(entry(), 0..3), any::<[bool; 3]>());
    let groups = groups.prop_map(|(one, mut two, mut three, [a, b, c])| {
        two.extend(a.then(|| "group:one".to_owned()));
        three.extend(b.then(|| "group:one".to_owned()));
        three.extend(c.then(|| "group:two".to_owned()));
        GROUPS.map(str::to_owned).into_iter().zip([one, two, three]).collect()
    });
    let operations = btree_map(
        proptest::sample::select(OPERATIONS.to_vec()).prop_map(str::to_owned),
        (option::of(list()), list()),
        0..3,
    );
    (groups, list(), list(), operations).prop_map(|(groups, allow, deny, operations)| Sheet {
        groups,
        allow,
        deny,
        operations,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn rules_decide_as_their_texts_say(sheet in sheet(), callers in vec(caller(), 1..8)) {
        let access = sheet.access();
        for caller in &callers {
            for operation in OPERATIONS {
                prop_assert_eq!(access.admits(operation, caller), sheet.says(operation, caller), "{} for {}", operation, caller);
            }
            let some = OPERATIONS.iter().any(|operation| sheet.says(operation, caller));
            prop_assert_eq!(access.admits_any(caller), some);
            prop_assert!(!access.admits("unheard-of", caller));
        }
    }
}

#[derive(Debug)]
struct Nothing;

#[async_trait]
impl Handler for Nothing {
    async fn handle(&self, _call: &mut Call) -> Result<(), Status> {
        Ok(())
    }
}

/// The plugins `a` and `b`, each with these operations, and guarded by these rules; one without operations is not there.
fn plugins(a: (&[&'static str], Option<Access>), b: (&[&'static str], Option<Access>)) -> Plugins {
    let there = |name, operations: &[&'static str]| {
        let descriptor = operations.iter().fold(Descriptor::new(name, ""), |descriptor, operation| {
            descriptor.operation(Operation::new(*operation, ""))
        });
        (!operations.is_empty()).then(|| descriptor.handler(|| Nothing))
    };
    let always = there("echo", &["echo"]);
    let registry = Registry::of([there("a", a.0), there("b", b.0), always].into_iter().flatten()).expect("handlers");
    let text: String = registry.names().map(|name| format!("[plugins.{name}]\n")).collect();
    let mut config = Config::parse(&crate::config::Origin::text(text), &registry, &[]).expect("a good configuration");
    for plugin in &mut config.plugins {
        plugin.access = match plugin.name.as_str() {
            "a" => a.1.clone(),
            "b" => b.1.clone(),
            _ => None,
        };
    }
    let nowhere = std::path::Path::new("");
    let layers = Layers::build(Default::default(), nowhere).expect("no layers");
    Plugins::build(config.plugins, &registry, nowhere, &layers, Default::default(), None)
        .expect("plugins that can be built")
}

/// What `caller` hears when it calls: the operation that runs, or the end.
fn heard(plugins: &Plugins, command: &str, caller: &Caller) -> Result<String, (Code, String, String)> {
    let found = plugins.find(command, caller);
    found
        .map(|route| format!("{}.{}", route.plugin.name, route.operation_name()))
        .map_err(|status| (status.code(), status.reason().to_owned(), status.message().to_owned()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// To each caller a server with rules is a server that has nothing but what it may call.
    #[test]
    fn what_may_not_be_called_is_not_there(a in sheet(), b in sheet(), callers in vec(caller(), 1..4)) {
        let guarded = plugins((&OPERATIONS, Some(a.access())), (&OPERATIONS, Some(b.access())));
        for caller in &callers {
            let open = |sheet: &Sheet| -> Vec<&'static str> {
                OPERATIONS.into_iter().filter(|operation| sheet.says(operation, caller)).collect()
            };
            let (open_a, open_b) = (open(&a), open(&b));
            let bare = plugins((&open_a, None), (&open_b, None));
            for plugin in ["a", "b", "ab", "echo", "plugd"] {
                let operations = OPERATIONS.into_iter().chain(["pit", "echo", "list", ""]);
                let commands = operations.map(|operation| format!("{plugin}.{operation}")).chain([plugin.to_owned()]);
                for command in commands {
                    let found = heard(&guarded, &command, caller);
                    prop_assert_eq!(&found, &heard(&bare, &command, caller), "{} by {}", command, caller);
                    let is_refused = |sheet: &Sheet, open: &[&str]| {
                        let operation = command.split_once('.').map(|(_, operation)| operation);
                        open.is_empty() || operation.is_some_and(|name| OPERATIONS.contains(&name) && !sheet.says(name, caller))
                    };
                    let by_access = match plugin {
                        "a" => is_refused(&a, &open_a),
                        "b" => is_refused(&b, &open_b),
                        _ => false,
                    };
                    let origin = guarded.find(&command, caller).err().map(|status| status.origin());
                    prop_assert_eq!(origin == Some(Origin::Access), by_access, "{} by {}", command, caller);
                }
            }
        }
    }
}

fn groups(groups: &[(&str, &[&str])]) -> Vec<String> {
    let section = groups
        .iter()
        .map(|(name, members)| ((*name).to_owned(), members.iter().map(|member| (*member).to_owned()).collect()));
    Groups::read(&section.collect(), Vec::new()).1.iter().map(ToString::to_string).collect()
}

#[test]
fn a_group_that_cannot_be_resolved_is_refused_at_its_entry() {
    assert_eq!(groups(&[("a", &["uid:1", "group:b"]), ("b", &["any"])]), Vec::<String>::new());
    assert_eq!(groups(&[("a", &["group:a"])]), ["a.0: group \"a\" would hold itself through \"a\""]);
    assert_eq!(
        groups(&[("a", &["uid:1", "group:b"]), ("b", &["group:c"]), ("c", &["group:a"]), ("d", &["group:a"])]),
        [
            "a.1: group \"a\" would hold itself through \"b\"",
            "b.0: group \"b\" would hold itself through \"c\"",
            "c.0: group \"c\" would hold itself through \"a\"",
        ]
    );
    assert_eq!(
        groups(&[("ops", &[]), ("x", &["group:opps"])]),
        ["x.0: unknown group \"opps\"; did you mean \"ops\"?; known: ops, x"]
    );
    assert_eq!(groups(&[("A", &[])]), ["A: illegal group name; allowed: [a-z][a-z0-9_-]*, at most 64 bytes"]);
}

#[test]
fn a_rule_that_cannot_be_resolved_is_refused_as_a_whole() {
    let complaints = |section: serde_json::Value| {
        let section: AccessSection = serde_json::from_value(section).expect("a table");
        let operations = OPERATIONS.map(|name| Operation::new(name, ""));
        let errors = section.resolve(Some(&operations), &Groups::default()).expect_err("refused");
        errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        complaints(json!({ "deny": ["uid:1"] })),
        ["it says nothing of who may call; add `allow = [...]`, with \"any\" for everybody"]
    );
    assert_eq!(
        complaints(json!({ "allow": ["any", "group:a"], "operations": { "git": {}, "run": { "deny": ["uid:x"] } } })),
        [
            "allow.1: unknown group \"a\"; known: none; add them to [groups]",
            "operations.run.deny.0: \"uid:x\": \"x\" is no uid",
            "operations.git: unknown operation \"git\"; did you mean \"get\"?; allowed: get, put, run",
        ]
    );
    let many: Vec<String> = (0..=groups::ENTRIES_MAX).map(|uid| format!("uid:{uid}")).collect();
    assert_eq!(complaints(json!({ "allow": many })), ["allow.0: 4097 entries with those of the groups; allowed: 4096"]);
}
