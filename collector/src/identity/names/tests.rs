//! Who is heard and who is waited for, turn by turn, with the answers as data.

use super::*;

const SECOND: u64 = 1_000_000_000;

fn finder(api: Api) -> Finder {
    let options = NameOptions {
        cri: CriSocket::At("/nowhere.sock".into()),
        api: ApiAccess::Off,
        ..NameOptions::default()
    };
    Finder {
        api,
        roots: vec!["/nowhere".into()],
        ..Finder::new(options, watch::channel(Arc::default()).0, Arc::default())
    }
}

/// Asks for a container of a pod at 0.
fn ask(finder: &mut Finder, container_id: &str, pod_uid: Option<&str>) -> LatePod {
    ask_at(finder, container_id, pod_uid, 0)
}

fn ask_at(finder: &mut Finder, container_id: &str, pod_uid: Option<&str>, asked_ns: u64) -> LatePod {
    let place = LatePod::awaited(asked_ns + WAIT_NS);
    finder.ask(Request {
        container_id: container_id.to_owned(),
        pod_uid: pod_uid.map(str::to_owned),
        place: place.clone(),
        asked_ns,
    });
    // Nobody is really asked here.
    finder.waiting.values_mut().for_each(|waiting| waiting.lookup_ns = None);
    place
}

fn cri(restart_count: u32) -> Facts {
    Facts { restart_count: Some(restart_count), ..Facts::of_pod("shop", "cart-1", "12", "web") }
}

fn api_pod(uid: &str) -> ApiEvent {
    ApiEvent::Pod(Box::new(pod_of(uid)))
}

fn pod_of(uid: &str) -> ApiPod {
    let facts = Facts {
        container: None,
        owner: Some(("StatefulSet".to_owned(), "cart".to_owned())),
        has_metadata: true,
        ..Facts::of_pod("shop", "cart-1", uid, "")
    };
    ApiPod { facts, node_uid: uid.to_owned(), ..ApiPod::default() }
}

fn service(place: &LatePod) -> Option<&str> {
    place.get().and_then(|pod| pod.service_name.as_deref())
}

#[test]
fn the_runtime_alone_names_where_no_server_is() {
    let mut finder = finder(Api::Absent);
    let place = ask(&mut finder, "a", Some("12"));
    finder.turn(1);
    assert_eq!(service(&place), None);
    finder.on_runtime("a", Ok(Some(cri(3))));
    finder.turn(2);
    assert_eq!((service(&place), place.get().and_then(|pod| pod.restart_count)), (Some("web"), Some(3)));
    assert!(finder.waiting.is_empty());
    // Known from now on.
    assert_eq!(service(&ask(&mut finder, "a", None)), Some("web"));
}

/// On a machine with neither, as one that only runs tests of cgroups.
#[test]
fn nobody_is_waited_for_where_nobody_is() {
    let mut finder = finder(Api::Absent);
    finder.options.cri = CriSocket::Auto;
    let place = LatePod::awaited(WAIT_NS);
    let (container_id, pod_uid) = ("a".to_owned(), Some("12".to_owned()));
    finder.ask(Request { container_id, pod_uid, place: place.clone(), asked_ns: 0 });
    finder.turn(1);
    assert!(!place.is_awaited(1) && place.get().is_none());
}

#[test]
fn both_are_heard_where_both_are() {
    let mut finder = finder(Api::Live);
    let place = ask(&mut finder, "a", Some("12"));
    finder.on_runtime("a", Ok(Some(cri(3))));
    finder.turn(1);
    assert_eq!(service(&place), None, "the server may say more");
    finder.on_api(api_pod("12"), 0);
    finder.turn(2);
    assert_eq!((service(&place), place.get().and_then(|pod| pod.restart_count)), (Some("cart"), Some(3)));
}

#[test]
fn the_server_alone_is_not_enough_without_the_containers_name() {
    let mut finder = finder(Api::Live);
    finder.on_api(api_pod("12"), 0);
    let place = ask(&mut finder, "a", Some("12"));
    finder.on_runtime("a", Err(anyhow::anyhow!("hangs")));
    finder.turn(WAIT_NS);
    assert_eq!(service(&place), None);
    // It is still looked for, for records to come.
    finder.on_runtime("a", Ok(Some(cri(0))));
    finder.turn(WAIT_NS + 1);
    assert_eq!(service(&place), Some("cart"));
}

#[test]
fn a_server_that_says_nothing_is_waited_for_5_s() {
    for api in [Api::Beginning, Api::Live] {
        let mut finder = finder(api);
        let place = ask(&mut finder, "a", Some("12"));
        finder.on_runtime("a", Ok(Some(cri(0))));
        finder.turn(WAIT_NS - 1);
        assert_eq!(service(&place), None);
        finder.turn(WAIT_NS);
        assert_eq!(service(&place), Some("web"), "{api:?}");
    }
    // One that gives errors may answer again, until it gave them for as long as records wait.
    let mut finder = finder(Api::Live);
    finder.on_api(ApiEvent::Down("403".to_owned()), 1);
    let mut named_at = |asked_ns: u64, now_ns: u64| {
        let place = ask_at(&mut finder, &asked_ns.to_string(), Some("12"), asked_ns);
        finder.on_runtime(&asked_ns.to_string(), Ok(Some(cri(0))));
        finder.turn(now_ns);
        service(&place).is_some()
    };
    assert!(!named_at(2, 3));
    assert!(named_at(WAIT_NS + 1, WAIT_NS + 2));
}

#[test]
fn two_pods_of_one_name_are_two_and_a_new_one_is_not_the_old() {
    let mut finder = finder(Api::Live);
    finder.on_api(api_pod("12"), 0);
    let (old, new) = (ask(&mut finder, "a", Some("12")), ask(&mut finder, "b", Some("34")));
    for (id, uid) in [("a", "12"), ("b", "34")] {
        finder.on_runtime(id, Ok(Some(Facts { uid: uid.to_owned(), ..cri(0) })));
    }
    finder.turn(1);
    assert_eq!((service(&old), service(&new)), (Some("cart"), None));
    finder.on_api(ApiEvent::Gone(Box::new(ApiPod { node_uid: "12".to_owned(), ..Default::default() })), 0);
    finder.on_api(api_pod("34"), 0);
    finder.turn(2);
    assert_eq!(new.get().map(|pod| pod.uid.as_str()), Some("34"));
    // Late records of the old one are still named.
    assert_eq!(service(&ask(&mut finder, "a", Some("12"))), Some("cart"));
}

#[test]
fn who_does_not_know_a_container_of_a_pod_yet_may_know_it_later() {
    type Answer = fn() -> Result<Option<Facts>>;
    // A sandbox runs before the runtime lists it; the server has the pod, and its containers' ids later still.
    let not_yet: [Answer; 2] = [|| Ok(None), || Err(anyhow::anyhow!("busy"))];
    for (api, answer) in [Api::Live, Api::Absent].into_iter().flat_map(|api| not_yet.map(|not| (api, not))) {
        let mut finder = finder(api);
        if api == Api::Live {
            finder.on_api(api_pod("12"), 0);
        }
        let place = ask(&mut finder, "a", Some("12"));
        let stranger = ask(&mut finder, "s", None);
        for id in ["a", "s"] {
            finder.on_runtime(id, answer());
            assert!(finder.waiting[id].lookup_ns.is_some(), "it is asked again");
        }
        finder.turn(WAIT_NS - 2);
        assert!(place.is_awaited(WAIT_NS - 2), "{api:?}");
        assert_eq!(
            stranger.is_awaited(0),
            api == Api::Live,
            "a container of no pod is not looked for so long"
        );
        finder.on_runtime("a", Ok(Some(cri(0))));
        finder.turn(WAIT_NS - 1);
        assert!(service(&place).is_some(), "{api:?}");
        // It ends, be it that nobody ever tells.
        let never = ask(&mut finder, "n", Some("13"));
        finder.on_runtime("n", answer());
        finder.turn(WAIT_NS);
        assert!(finder.waiting["n"].is_late && !never.is_awaited(0), "{api:?}");
    }
}

#[test]
fn a_container_that_is_awaited_is_asked_for_up_to_the_end() {
    let mut finder = finder(Api::Absent);
    ask(&mut finder, "a", Some("12"));
    let waiting = finder.waiting.get_mut("a").expect("it waits");
    let mut delays_ns = Vec::new();
    for _ in 0..7 {
        delays_ns.push(waiting.lookup_delay_ns);
        waiting.retry();
    }
    let asked_ms = delays_ns.iter().scan(0, |at_ns, delay_ns| {
        *at_ns += delay_ns;
        Some(*at_ns / 1_000_000)
    });
    assert_eq!(asked_ms.collect::<Vec<u64>>(), [100, 300, 700, 1_500, 3_100, 4_700, 6_300]);
    waiting.is_late = true;
    waiting.retry();
    assert_eq!(waiting.lookup_delay_ns, 2 * RETRY_AWAITED_NS_MAX, "nobody waits any more");
}

#[test]
fn the_links_to_logs_are_the_last_to_be_asked() {
    let root = tempfile::tempdir().expect("a directory");
    let folder = root.path().join("var/log/containers");
    std::fs::create_dir_all(&folder).expect("made");
    let link = |id: &str| {
        let target = "/var/log/pods/shop_cart-1_12/web/0.log";
        std::os::unix::fs::symlink(target, folder.join(format!("cart-1_shop_web-{id}.log"))).expect("made");
    };
    let mut finder = Finder { roots: vec![root.path().to_owned()], ..finder(Api::Absent) };
    let (early, late) = (ask(&mut finder, "e", Some("12")), ask(&mut finder, "l", Some("12")));
    link("e");
    finder.turn(1);
    assert_eq!(service(&early), None, "the runtime was not heard");
    for id in ["e", "l"] {
        finder.on_runtime(id, Ok(None));
    }
    finder.turn(2);
    assert_eq!((service(&early), service(&late)), (Some("web"), None));
    link("l");
    finder.turn(WAIT_NS - 1);
    assert_eq!(service(&late), None, "folders are not read at each turn");
    finder.turn(WAIT_NS);
    assert_eq!(service(&late), Some("web"));
}

#[test]
fn what_is_never_found_is_given_up_and_counted() {
    let mut finder = finder(Api::Absent);
    let place = ask(&mut finder, "a", Some("12"));
    let stranger = ask(&mut finder, "s", None);
    finder.on_runtime("a", Ok(None));
    finder.turn(SEARCH_NS);
    assert!(finder.waiting.is_empty() && place.get().is_none() && stranger.get().is_none());
    assert!(!place.is_awaited(SEARCH_NS));
}

#[test]
fn a_server_that_is_away_is_waited_for_but_not_busily() {
    let mut finder = finder(Api::Live);
    let place = ask(&mut finder, "a", Some("12"));
    let stranger = ask(&mut finder, "s", None);
    finder.on_runtime("a", Ok(None));
    finder.on_api(ApiEvent::Down("unauthorized".to_owned()), 0);
    assert_eq!(finder.pause(0), BUSY_TURN);
    finder.turn(10 * SEARCH_NS);
    finder.has_changed = false;
    assert_eq!(finder.pause(10 * SEARCH_NS), IDLE_TURN);
    assert!(!place.is_awaited(10 * SEARCH_NS));
    // The runtime is asked again when it is time, though no record waits.
    finder.waiting.values_mut().for_each(|waiting| waiting.lookup_ns = Some(10 * SEARCH_NS + SECOND));
    assert_eq!(finder.pause(10 * SEARCH_NS), Duration::from_secs(1));
    finder.waiting.values_mut().for_each(|waiting| waiting.lookup_ns = None);
    assert_eq!(finder.waiting.len(), 1, "only what is certainly in a pod can come");
    let named = ApiPod { containers: vec![("a".to_owned(), cri(0))], ..pod_of("12") };
    finder.on_api(ApiEvent::Pod(Box::new(named)), 10 * SEARCH_NS);
    finder.turn(10 * SEARCH_NS + 1);
    assert_eq!(service(&place), Some("cart"));
    assert!(stranger.get().is_none());
    // One that it does not know once it is back is given up.
    ask(&mut finder, "b", Some("13"));
    finder.turn(10 * SEARCH_NS + SECOND);
    assert!(finder.waiting.is_empty());
}

#[test]
fn questions_are_bounded() {
    let mut finder = finder(Api::Absent);
    for number in 0..WAITING_MAX {
        assert!(ask_quickly(&mut finder, &number.to_string()).is_awaited(0));
    }
    assert!(
        !ask_quickly(&mut finder, "one too many").is_awaited(0),
        "nobody waits for what nobody looks for"
    );
    assert_eq!(finder.waiting.len(), WAITING_MAX);
}

fn ask_quickly(finder: &mut Finder, container_id: &str) -> LatePod {
    let (container_id, place) = (container_id.to_owned(), LatePod::awaited(SECOND));
    finder.ask(Request { container_id, pod_uid: None, place: place.clone(), asked_ns: 0 });
    place
}

#[test]
fn the_thread_answers_and_ends() {
    let root = tempfile::tempdir().expect("a directory");
    let options = NameOptions {
        cri: CriSocket::None,
        api: ApiAccess::Kubeconfig(root.path().join("missing")),
        cache: Some(root.path().join("names.json")),
        keeps_cache: true,
        ..NameOptions::default()
    };
    let mut cache = Cache::open(options.cache.clone());
    cache.insert("a".repeat(64), Pod::of(&cri(1), &options.choice));
    cache.take_changes().expect("something new").save().expect("written");
    let (names, thread) = Names::start(options).expect("started");
    let container = Container { id: "a".repeat(64), runtime: None };
    let place =
        names.pod_of(&container, Some(&PodPlace { uid: "12".to_owned(), container_id: "a".repeat(64) }));
    while place.is_awaited(monotonic_ns()) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(service(&place), Some("web"));
    drop(names);
    thread.join();
}
