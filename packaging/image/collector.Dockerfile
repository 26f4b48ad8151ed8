# The collector and its command line: two static programs, no shell, no libraries.
FROM scratch
COPY dunlin-collector dunlin /usr/bin/
COPY --chown=65532:65532 state /var/lib/dunlin-collector
# What is handed to other containers, such as a join token, goes through a volume here.
COPY --chown=65532:65532 state /run/dunlin
ENV PATH=/usr/bin
USER 65532:65532
VOLUME /var/lib/dunlin-collector
EXPOSE 9737/udp 9738/tcp
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["dunlin-collector", "check", "--alive"]
ENTRYPOINT ["dunlin-collector"]
CMD ["run"]
