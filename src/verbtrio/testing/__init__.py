"""What those who write a part of their own, such as a broker, test it with."""
