from __future__ import annotations
from collections import deque
from agent.errors import Transient
from agent.uplink import Connected, Delivered, Disconnected, Received, Refused
def match(f, t):
    a, b = f.split("/"), t.split("/")
    return len(a) == len(b) and all(x in ("+", y) for x, y in zip(a, b))
class T:
    def __init__(self, broker, clock, heard):
        self.b, self.clock, self.heard = broker, clock, heard
        self.q = deque(); self.hello = None; self.addr=None; self.connected = False; self.mid = 0
    def connect(self, broker, hello):
        self.addr, self.hello = broker, hello
        if self.b.up and hello.client_id not in self.b.down:
            self.connected = True; self.b.clients[hello.client_id] = self
            self.q.append(Connected(broker))
            for t, p in self.b.retained.items():
                if any(match(f, t) for f, _ in hello.subscriptions): self.q.append(Received(t, p, True))
        else: self.q.append(Refused(broker, "unreachable"))
    def disconnect(self):
        if self.connected: self.connected=False; self.b.clients.pop(self.hello.client_id, None)
    def publish(self, topic, payload, *, qos, retain=False):
        if not self.connected: raise Transient("no connection")
        self.mid += 1
        self.heard(topic, payload)
        if qos: self.q.append(Delivered(self.mid))
        self.b.publish(topic, payload, retain)
        return self.mid
    def poll(self, timeout_s):
        out = []
        while self.q and len(out) < 200: out.append(self.q.popleft())
        return out
    def wake(self): pass
class FakeBroker:
    def __init__(self): self.up=True; self.down=set(); self.clients={}; self.retained={}
    def transport(self, clock, heard): return T(self, clock, heard)
    def publish(self, topic, payload, retain):
        if retain: self.retained[topic]=payload
        for c in list(self.clients.values()):
            if any(match(f, topic) for f, _ in c.hello.subscriptions): c.q.append(Received(topic, payload))
    def cut(self, client):
        c = self.clients.pop(client, None)
        if c:
            c.connected=False; c.q.clear(); c.q.append(Disconnected(c.addr, "cut"))
            if c.hello.will: self.publish(c.hello.will.topic, c.hello.will.payload, True)
    def network(self, client, up):
        if up: self.down.discard(client)
        else: self.down.add(client); self.cut(client)
