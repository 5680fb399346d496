"""What public models are made of: open enums, links, and the structuring of documents member by member.

May use `_core` and below; must not send requests and must not know URLs.
"""
