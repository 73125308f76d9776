"""Attachments: the node's side of them. Bytes, scans and downloads are the content plane's."""
