"""The way to the customers."""

import os
import smtplib
from email.message import EmailMessage


def send(to: str, text: str) -> None:
    """Send one mail. Raises `OSError` when the mail server cannot be reached."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "shop@example.com", to, text
    message.set_content(text)
    with smtplib.SMTP(os.environ["SHOP_SMTP"]) as server:
        server.send_message(message)
