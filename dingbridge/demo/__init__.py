"""dingbridge without an account: stand-ins for both servers, a real daemon between them, and somewhere to chat."""
