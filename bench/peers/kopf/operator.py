"""An operator of AgentRuntime on kopf, as its users would write one: for `cargo xtask bench operator`.

It does the steps of a transition and no more: a boot ConfigMap with a raised epoch, a command to each pod, before it
says paused a list of the pods that no cache answers, and one write of the status.
"""

import asyncio
import datetime
import logging

import aiohttp
import kopf
import uvloop
from kubernetes_asyncio import client, config

GROUP = ("agents.hive.dev", "v1alpha1", "agentruntimes")
LABEL = "agents.hive.dev/runtime"
VERBS = {"running": "resume", "paused": "pause", "stopped": "stop"}
# Calls to pods of one object at once.
PUSHES = 128
# More means that a pod hangs.
CALL_TIMEOUT = aiohttp.ClientTimeout(total=3)
RETRY_AFTER = 1

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


@kopf.on.startup()
async def start(settings: kopf.OperatorSettings, memo: kopf.Memo, **_):
    # Workers are not limited, which is the default: before all pods are indexed, each pod that is listed keeps one.
    settings.posting.enabled = False
    logging.getLogger("kopf").setLevel(logging.WARNING)
    await config.load_kube_config()
    memo.api = client.ApiClient()
    connector = aiohttp.TCPConnector(limit=0, limit_per_host=1, keepalive_timeout=5)
    memo.pods = aiohttp.ClientSession(connector=connector, timeout=CALL_TIMEOUT)
    # The epoch that each pod has acknowledged, by UID.
    memo.acknowledged = {}


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_):
    await memo.pods.close()
    await memo.api.close()


@kopf.index("pods", labels={LABEL: kopf.PRESENT})
async def pods(namespace, name, labels, uid, status, **_):
    return {(namespace, labels[LABEL]): (name, uid, status.get("podIP"))}


@kopf.on.resume(*GROUP)
@kopf.on.create(*GROUP)
@kopf.on.update(*GROUP, field="spec")
async def reconcile(namespace, name, uid, spec, meta, patch, memo: kopf.Memo, pods: kopf.Index, **_):
    desired = spec.get("desiredState", "running")
    epoch = await boot(memo, namespace, name, uid, desired)
    known = list(pods.get((namespace, name), []))
    await push(memo, known, spec["lifecycle"]["port"], VERBS[desired], epoch)
    count = acknowledged(memo, [uid for _, uid, _ in known], epoch)
    reached = count == spec.get("replicas", 1)
    if reached and desired != "running":
        reached = await barrier(memo, namespace, name, epoch)
    if not reached:
        raise kopf.TemporaryError(f"{count} pods have acknowledged", delay=RETRY_AFTER)
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    patch.status.update({
        "observedGeneration": meta["generation"],
        "epoch": epoch,
        "desiredState": desired,
        "state": desired,
        "replicas": len(known),
        "acknowledgedReplicas": count,
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "Acknowledged", "lastTransitionTime": now,
            "message": f"{count} pods are {desired}", "observedGeneration": meta["generation"],
        }],
    })


async def boot(memo, namespace, name, uid, desired):
    """Keeps the ConfigMap that pods boot from, and raises its epoch when another state is asked for."""
    api = client.CoreV1Api(memo.api)
    try:
        found = await api.read_namespaced_config_map(f"{name}-boot", namespace)
    except client.ApiException as error:
        if error.status != 404:
            raise
        owner = client.V1OwnerReference(
            api_version=f"{GROUP[0]}/{GROUP[1]}", kind="AgentRuntime", name=name, uid=uid, controller=True)
        metadata = client.V1ObjectMeta(name=f"{name}-boot", owner_references=[owner])
        body = client.V1ConfigMap(metadata=metadata, data={"epoch": "1", "state": desired})
        await api.create_namespaced_config_map(namespace, body)
        return 1
    epoch = int(found.data["epoch"])
    if found.data["state"] == desired:
        return epoch
    found.data = {"epoch": str(epoch + 1), "state": desired}
    await api.replace_namespaced_config_map(f"{name}-boot", namespace, found)
    return epoch + 1


async def push(memo, known, port, verb, epoch):
    """Commands every pod that has not acknowledged the epoch. A pod that does not answer is tried again later."""
    limit = asyncio.Semaphore(PUSHES)

    async def call(pod, uid, address):
        async with limit:
            try:
                url = f"http://{address}:{port}/api/v1/lifecycle/{verb}"
                async with memo.pods.post(url, json={"epoch": epoch}) as response:
                    response.raise_for_status()
                    await response.read()
                memo.acknowledged[uid] = epoch
            except (aiohttp.ClientError, asyncio.TimeoutError) as error:
                logging.warning("%s does not answer: %r", pod, error)

    due = [pod for pod in known if pod[2] and memo.acknowledged.get(pod[1]) != epoch]
    await asyncio.gather(*(call(*pod) for pod in due))


def acknowledged(memo, uids, epoch):
    return sum(memo.acknowledged.get(uid) == epoch for uid in uids)


async def barrier(memo, namespace, name, epoch):
    """Lists the pods by the API server's store, and says whether each has acknowledged the epoch."""
    listed = await metadata(memo, namespace, name)
    uids = [item["metadata"]["uid"] for item in listed["items"]]
    return acknowledged(memo, uids, epoch) == len(uids)


async def metadata(memo, namespace, name):
    """Of the pods only the metadata, which the generated client has no call for."""
    response = await memo.api.call_api(
        "/api/v1/namespaces/{namespace}/pods", "GET", path_params={"namespace": namespace},
        query_params=[("labelSelector", f"{LABEL}={name}")],
        header_params={"Accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"},
        auth_settings=["BearerToken"], response_types_map={200: "object"}, _return_http_data_only=True)
    return response
