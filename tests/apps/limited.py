"""An echo with a rate, for coroutines and for plain functions, and one for those who keep to it."""

from verbtrio import App, Limits, WebSocket

app = App()
limited = app.group("", limits=Limits(max_messages_per_second=100, message_burst=100))


@limited.ws("/coroutine")
async def coroutine(ws: WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


limited.ws("/function", message=lambda ws, message: ws.send_nowait(message))
app.ws("/free", message=lambda ws, message: ws.send_nowait(message))
app.ws("/ended", open=lambda ws: ws.send_nowait(app.statistics().ended))
