"""The application's own tasks: `@app.task` and `@app.every`, run beside its connections until the drain begins."""
