//! How often pods that have converged are asked, and how often an object with many of them is looked at.

use std::time::Duration;

use super::*;

#[test]
fn pods_that_are_due_soon_are_asked_together_and_each_about_twice_a_minute() {
    let mut world = World::new(DesiredState::Running, 300);
    world.settle(20);
    let mut asked: HashMap<String, Vec<Timestamp>> = HashMap::new();
    let (begun, end) = (world.now, world.now + jiff::SignedDuration::from_mins(10));
    let mut looks = 0;
    while world.now < end {
        // As an operator that no answer wakes, since none says anything new.
        let plan = world.step();
        looks += 1;
        for order in &plan.orders {
            assert!(matches!(order.call, Call::Ask { after: None }), "{:?}", order.call);
            asked.entry(order.pod.clone()).or_default().push(world.now);
        }
        world.now += jiff::SignedDuration::try_from(plan.again.unwrap()).unwrap();
    }
    assert_eq!(asked.len(), 300);
    for (pod, times) in &asked {
        for (before, after) in std::iter::once(&begun).chain(times).zip(times).skip(1) {
            let pause = Duration::try_from(after.duration_since(*before)).unwrap();
            assert!((Duration::from_secs(20)..=Duration::from_secs(35)).contains(&pause), "{pod}: {pause:?}");
        }
    }
    assert!(looks <= 10 * 60 / 5 + 1, "{looks} looks at 300 pods in ten minutes");
}

#[test]
fn a_pod_alone_is_looked_at_as_often_as_it_is_asked() {
    let mut world = World::new(DesiredState::Paused, 1);
    world.settle(20);
    for _ in 0..10 {
        let plan = world.step();
        let again = plan.again.unwrap();
        assert!((Duration::from_secs(20)..=Duration::from_secs(35)).contains(&again), "{again:?}");
        world.now += jiff::SignedDuration::try_from(again).unwrap();
        assert_eq!(world.plan().orders.len(), 1);
    }
}

#[test]
fn a_definition_that_is_missing_is_looked_for_soon_and_ever_more_rarely() {
    let mut world = World::new(DesiredState::Running, 1);
    let from = crds::ConfigMapKey { name: "mine".to_owned(), key: "agent.yaml".to_owned() };
    world.runtime.spec.agent = Some(AgentSource { inline: None, config_map_ref: Some(from) });
    let mut seen = world.observed();
    assert!(plan(&seen, &settings(), at(0)).children.read_agent, "it has not been looked for");
    seen.agent_read = Some(at(0));
    seen.agent = AgentText::Missing("spec.agent.configMapRef: there is no ConfigMap mine".to_owned());
    let first = plan(&seen, &settings(), at(0));
    assert_eq!((first.children.read_agent, first.children.again), (false, Some(Duration::from_secs(1))));
    let mut runtime = world.runtime.clone();
    runtime.status = first.status.map(|status| *status);
    seen.runtime = Arc::new(runtime);
    let mut again = |seconds| {
        seen.agent_read = Some(at(seconds));
        plan(&seen, &settings(), at(seconds)).children.again.unwrap().as_secs()
    };
    assert_eq!([5, 100, 250, 86_400].map(&mut again), [1, 10, 25, 30]);
}
