"""The throw-away child: untrusted bytes are parsed there, and only its answer comes out."""
