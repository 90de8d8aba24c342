"""Rating: judgements collected from people in a local web page - what is shown, where it is kept, the page, agreement, export."""
