"""What the data plane's services need from the outside."""
