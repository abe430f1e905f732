"""What the station tells others: webhooks, contacts, feeds, Home Assistant. Whoever is told, and where, stands in the
settings; nothing that a node sends can choose a destination.

notice.py          what is told, in words and as data (pure); text of nodes made harmless
retry.py           when to try again, and when no more (pure)
queue.py           a row for each notice and destination, in the station's database
worker.py          takes rows to their destinations, each in its own order, none waiting for another
webhook.py         Standard Webhooks, signed
messages.py        contacts by apprise: e-mail, messengers
tokens.py          who may fetch feeds
cap.py, onvif.py, metrics.py    what feeds say (pure)
discovery.py       Home Assistant's messages (pure); home_assistant.py publishes them
making.py          from settings to all of it
"""
