"""dingbridge: DingTalk chats answered from AnythingLLM. Handlers import their names from here."""

from dingbridge.model import Answer, Conversation, Message, Person, Reply, Source

__version__ = "0.1.0"
__all__ = ["Answer", "Conversation", "Message", "Person", "Reply", "Source", "__version__"]
