"""What the strings of a vocabulary say: codes and their families, placeholders, unused rows; which rows are new, reserved, text.

Rows are looked at only to tell the never trained; nothing is measured here.
"""
