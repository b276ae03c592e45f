"""The chat side: nothing outside this folder knows DingTalk's wire."""
