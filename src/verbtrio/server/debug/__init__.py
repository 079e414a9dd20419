"""`App(debug=True)`: a function that holds the event loop is named, and Ctrl+C gets it out of a computation."""
