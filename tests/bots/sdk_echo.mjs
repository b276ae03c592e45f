// The official SDK, untouched: acknowledges a bot message and echoes it through the session webhook.
// FORGETS=1: the first delivery of a message stays unacknowledged. TOKEN=1: asks for an access token first.
import { DWClient, TOPIC_ROBOT } from 'dingtalk-stream';

const client = new DWClient({ clientId: process.env.CLIENT_ID, clientSecret: process.env.CLIENT_SECRET });
const known = new Set();

// (where it is pointed to)

client.registerCallbackListener(TOPIC_ROBOT, async (frame) => {
  const message = JSON.parse(frame.data);
  if (process.env.FORGETS && !known.has(message.msgId)) {
    known.add(message.msgId);
    return;
  }
  client.socketCallBackResponse(frame.headers.messageId, null);
  const headers = { 'Content-Type': 'application/json' };
  if (process.env.TOKEN) headers['x-acs-dingtalk-access-token'] = await client.getAccessToken();
  const content = `echo: ${message.text.content.trim()}`;
  await fetch(message.sessionWebhook, {
    method: 'POST',
    headers,
    body: JSON.stringify({ msgtype: 'text', text: { content } }),
  });
});

client.connect();
